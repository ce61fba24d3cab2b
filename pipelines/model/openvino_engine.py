"""Generation by OpenVINO GenAI on a CPU: requests join and leave the batch at every step.

Weights go through float16, the only precision of a GGUF file that it reads unquantized, so tokens can differ from
transformers' at near ties; a policy that is trained samples from `TransformersEngine`. The same requests give the same
tokens, and each has a random generator of its own.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core.errors import BadInput
from pipelines.model.checkpoints import load_model
from pipelines.model.engine import Generation, Sampling, finish, fresh_text, stop_at
from pipelines.model.gguf import check_config, write_gguf
from pipelines.model.rendering import render_prompt

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """An `Engine` on OpenVINO's continuous batching."""

    def __init__(self, pipeline: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
        self.tokenizer = tokenizer
        self._pipeline = pipeline
        self._folder = folder
        self._dtype = dtype
        self._stepping = Lock()
        self._requests = 0

    @classmethod
    def load(cls, folder: Path, dtype: str, batch_size: int) -> Self:
        """Load the Hugging Face folder `folder`, computing in `dtype`, at most `batch_size` requests at once.

        Raises:
            BadInput: the folder holds no model, or one of a family that GGUF is not written for.
        """
        import openvino_genai

        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} holds no model (config.json is missing); run the stage that writes it")
        check_config(AutoConfig.from_pretrained(folder, local_files_only=True))
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = batch_size
        # As many threads as the stage was given, so that the same parameters give the same bytes.
        properties = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.gguf"
            write_gguf(folder, path, "float16")
            pipeline = openvino_genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
        return cls(pipeline, AutoTokenizer.from_pretrained(folder), folder, dtype)

    @cached_property
    def model(self) -> PreTrainedModel:
        return load_model(self._folder, self._dtype).eval()

    def render(self, chat: Sequence[dict[str, str]]) -> list[int]:
        return render_prompt(self.tokenizer, chat)

    def generate(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> list[Generation]:
        handles = [self._add(prompt, sampling) for prompt, sampling in zip(prompts, samplings, strict=True)]
        while self._step():
            pass
        return [
            self._finished([handle.read_all()[0]], sampling, len(prompt))
            for handle, prompt, sampling in zip(handles, prompts, samplings, strict=True)
        ]

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Generator[str, None, Generation]:
        handle = self._add(prompt, sampling)
        parts: list[Any] = []
        shown = 0
        for part in self._parts(handle):
            parts.append(part)
            if cancelled():
                handle.cancel()
                break
            text = self._finished(parts, sampling, len(prompt)).text
            if piece := fresh_text(text, shown, sampling.stop, finished=False):
                yield piece
                shown += len(piece)
        result = self._finished(parts, sampling, len(prompt))
        if len(result.text) > shown:
            yield result.text[shown:]
        return result

    def _add(self, prompt: Sequence[int], sampling: Sampling) -> Any:
        """Queue a request; who waits for any request moves all of them."""
        from openvino import Tensor
        from openvino_genai import GenerationConfig

        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
            rng_seed=sampling.seed,
            stop_strings=set(sampling.stop),
            include_stop_str_in_output=True,
            logprobs=int(sampling.logprobs),
            apply_chat_template=False,
        )
        config.set_eos_token_id(self.tokenizer.eos_token_id)
        with self._stepping:
            self._requests += 1
            return self._pipeline.add_request(self._requests, Tensor(np.array([prompt], dtype=np.int64)), config)

    def _step(self) -> bool:
        """Draw the next token of every request; False when none is left."""
        with self._stepping:
            if not self._pipeline.has_non_finished_requests():
                return False
            self._pipeline.step()
        return True

    def _parts(self, handle: Any) -> Iterator[Any]:
        """What is drawn for one request, as it comes."""
        while True:
            while handle.can_read():
                yield from handle.read().values()
            if not self._step() and not handle.can_read():
                return

    def _finished(self, parts: Sequence[Any], sampling: Sampling, prompt_tokens: int) -> Generation:
        """The generation that `parts` make up, without the end token and what was drawn after a stop string."""
        tokens = [token for part in parts for token in part.generated_ids]
        logprobs = [logprob for part in parts for logprob in part.generated_log_probs] if sampling.logprobs else []
        ended = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        length = len(tokens) - ended
        if sampling.stop:
            length = next((size for size in range(1, length) if self._stops(tokens[:size], sampling)), length)
        return finish(self.tokenizer, tokens[:length], logprobs[:length], ended, sampling, prompt_tokens)

    def _stops(self, tokens: list[int], sampling: Sampling) -> bool:
        return stop_at(self.tokenizer.decode(tokens, skip_special_tokens=True), sampling.stop) is not None
