"""vLLM's engine against a stand-in for the package: what it is given, and what becomes of its answers."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.core.errors import BadInput
from pipelines.model.engine import Sampling
from pipelines.model.vllm_engine import VllmEngine
from tests.models import make_policy


class FakeLLM:
    """Answers every prompt with its own tokens backwards, then the end token 2 when there is room for it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def generate(self, prompts: list[dict[str, list[int]]], params: list[Any], use_tqdm: bool) -> list[Any]:
        self.asked = params
        return [self.answer(*pair) for pair in zip(prompts, params, strict=True)]

    def answer(self, prompt: dict[str, list[int]], params: Any) -> Any:
        tokens = [*reversed(prompt["prompt_token_ids"]), *params.stop_token_ids][: params.max_tokens]
        logprobs = None
        if params.logprobs is not None:
            logprobs = [{token: SimpleNamespace(logprob=-float(token))} for token in tokens]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)])


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VllmEngine:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLLM, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return VllmEngine.load(make_policy(tmp_path / "model"), "bfloat16", batch_size=7)


def test_the_folder_is_loaded_as_the_parameters_say(engine: VllmEngine, tmp_path: Path) -> None:
    settings = engine._llm.settings
    assert (settings["model"], settings["dtype"]) == (str(tmp_path / "model"), "bfloat16")
    assert settings["max_num_seqs"] == 7


def test_each_request_keeps_its_own_sampling(engine: VllmEngine) -> None:
    engine.generate([[50], [60]], [Sampling(5, 0.7, 0.9, 11, ("\n",)), Sampling(6, 0.0, 1.0, 12, logprobs=True)])
    first, second = engine._llm.asked
    assert (first.temperature, first.top_p, first.max_tokens, first.seed) == (0.7, 0.9, 5, 11)
    assert (first.stop, first.logprobs, second.stop, second.logprobs) == (["\n"], None, [], 0)
    assert first.stop_token_ids == [engine.tokenizer.eos_token_id]


def test_an_answer_comes_without_its_end_token(engine: VllmEngine) -> None:
    found = engine.generate([[50, 60]], [Sampling(5, 1.0, 1.0, 0, logprobs=True)])[0]
    assert (found.token_ids, found.logprobs) == ((60, 50), (-60.0, -50.0))
    assert (found.finish_reason, found.prompt_tokens) == ("stop", 2)
    assert found.text == engine.tokenizer.decode([60, 50])


def test_an_answer_that_was_cut_says_so(engine: VllmEngine) -> None:
    found = engine.generate([[50, 60, 70]], [Sampling(2, 1.0, 1.0, 0)])[0]
    assert (found.token_ids, found.logprobs, found.finish_reason) == ((70, 60), (), "length")


def test_a_stream_is_the_whole_answer(engine: VllmEngine) -> None:
    assert list(engine.stream([50, 60], Sampling(5, 1.0, 1.0, 0), lambda: False)) == [engine.tokenizer.decode([60, 50])]


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInput, match=r"vllm==0\.32\.0"):
        VllmEngine.load(tmp_path, "bfloat16", 1)
