"""This project's engine as a model of lm-evaluation-harness: its tasks run on the model that is loaded already."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evals.likelihood import continuation_likelihoods
from pipelines.model.engine import Engine, Sampling

MAX_NEW_TOKENS = 256  # where a task does not say, as in the harness's own models


class EngineModel(TemplateLM):
    """Likelihoods by the engine's weights, generation by the engine."""

    def __init__(self, engine: Engine, batch_size: int, seed: int) -> None:
        super().__init__()
        self.tokenizer = engine.tokenizer
        self._engine = engine
        self._batch_size = batch_size
        self._seed = seed

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return int(self.eot_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id)

    @property
    def max_length(self) -> int:
        """Tokens that the model can read."""
        return int(self._engine.model.config.max_position_embeddings)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        begins = self.tokenizer.bos_token and string.startswith(self.tokenizer.bos_token)
        special = not begins if add_special_tokens is None else add_special_tokens
        ids: list[int] = self.tokenizer(string, add_special_tokens=special)["input_ids"]
        return ids

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        # Too long a text loses its beginning.
        pairs = [(context[-(self.max_length + 1 - len(rest)) :], rest) for _, context, rest in requests]
        found = continuation_likelihoods(self._engine.model, pairs, self._batch_size)
        return [(one.logprob, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        totals = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            parts = [(("", ""), *make_disjoint_window(window)) for window in windows]
            totals.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(parts)))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        prompts, samplings = [], []
        end = self.tokenizer.decode([self.eot_token_id])
        for number, (text, given) in enumerate(request.args for request in requests):
            settings = normalize_gen_kwargs(given, MAX_NEW_TOKENS)
            length = settings["max_gen_toks"]
            stops = handle_stop_sequences(settings.get("until"), eos=end)
            prompts.append(self.tok_encode(text)[-(self.max_length - length) :])
            samplings.append(
                Sampling(
                    length,
                    float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0,
                    float(settings.get("top_p", 1.0)),
                    self._seed + number,
                    tuple(stop for stop in stops if stop),
                )
            )
        return [generation.text for generation in self._engine.generate(prompts, samplings)]
