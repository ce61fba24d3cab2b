"""Generation by vLLM on a GPU. It is not among the pinned packages: who has a GPU installs it beside them."""

from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core.errors import BadInput
from pipelines.model.checkpoints import load_model
from pipelines.model.engine import Generation, Sampling, finish
from pipelines.model.rendering import render_prompt

PACKAGE = "vllm==0.32.0"
MEMORY_SHARE = 0.5  # of the GPU's memory; a model for likelihoods and a judge need the rest


class VllmEngine:
    """An `Engine` on vLLM's offline API."""

    def __init__(self, llm: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
        self.tokenizer = tokenizer
        self._llm = llm
        self._folder = folder
        self._dtype = dtype

    @classmethod
    def load(cls, folder: Path, dtype: str, batch_size: int) -> Self:
        """Load the Hugging Face folder `folder`, at most `batch_size` requests at once.

        Raises:
            BadInput: vLLM is not installed, or the folder holds no model.
        """
        try:
            from vllm import LLM
        except ImportError as error:
            raise BadInput(
                f"engine 'vllm' needs the package {PACKAGE} in .envs/project: `uv pip install --python "
                f".envs/project/bin/python {PACKAGE}`, or choose engine 'transformers' ({error})"
            ) from error
        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} holds no model (config.json is missing); run the stage that writes it")
        llm = LLM(model=str(folder), dtype=dtype, max_num_seqs=batch_size, gpu_memory_utilization=MEMORY_SHARE, seed=0)
        return cls(llm, AutoTokenizer.from_pretrained(folder), folder, dtype)

    @cached_property
    def model(self) -> PreTrainedModel:
        return load_model(self._folder, self._dtype).to("cuda").eval()  # type: ignore[arg-type]

    def render(self, chat: Sequence[dict[str, str]]) -> list[int]:
        return render_prompt(self.tokenizer, chat)

    def generate(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Generation]:
        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=sampling.seed,
                stop=list(sampling.stop),
                stop_token_ids=[self.tokenizer.eos_token_id],
                logprobs=0 if sampling.logprobs else None,  # 0: of the drawn token alone
            )
            for sampling in samplings
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        found = self._llm.generate(requests, params, use_tqdm=False)
        return [
            self._finished(one.outputs[0], sampling, len(prompt))
            for one, sampling, prompt in zip(found, samplings, prompts, strict=True)
        ]

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Generator[str, None, Generation]:
        """The whole response as one piece: the offline API has no tokens on the way."""
        result = self.generate([prompt], [sampling])[0]
        yield result.text
        return result

    def _finished(self, output: Any, sampling: Sampling, prompt_tokens: int) -> Generation:
        tokens = list(output.token_ids)
        logprobs = [by_token[token].logprob for token, by_token in zip(tokens, output.logprobs or [], strict=False)]
        ended = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        length = len(tokens) - ended
        return finish(self.tokenizer, tokens[:length], logprobs[:length], ended, sampling, prompt_tokens)
