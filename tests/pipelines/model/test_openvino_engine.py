"""OpenVINO's engine against transformers', and against itself in another order and in another process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.model.engine import Generation, Sampling, TransformersEngine
from tests.models import make_policy
from tests.pipelines.model.test_gguf import make_model
from tests.workspaces import ROOT

pytest.importorskip("openvino_genai", reason="OpenVINO GenAI is not installed")

from pipelines.model.openvino_engine import OpenVinoEngine  # noqa: E402

TEXTS = ["Hello!", "The capital of France", "one two three four five", "six", "How can I help", "Paris"]
GREEDY = Sampling(12, 0.0, 1.0, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("policy") / "model", context=256)


@pytest.fixture(scope="module")
def engine(folder: Path) -> OpenVinoEngine:
    return OpenVinoEngine.load(folder, "float32", batch_size=4)


def prompts_of(engine: OpenVinoEngine) -> list[list[int]]:
    return [engine.render([{"role": "user", "content": text}]) for text in TEXTS]


def test_greedy_generations_equal_those_of_transformers(engine: OpenVinoEngine, folder: Path) -> None:
    plain = TransformersEngine.load(folder, "float32", batch_size=4)
    samplings = [Sampling(3 + 2 * size, 0.0, 1.0, 0) for size in range(6)]
    assert engine.generate(prompts_of(engine), samplings) == plain.generate(prompts_of(engine), samplings)


def test_an_end_token_ends_a_response(engine: OpenVinoEngine, folder: Path) -> None:
    tokens = engine.generate(prompts_of(engine)[:1], [GREEDY])[0].token_ids
    ending = OpenVinoEngine.load(folder, "float32", batch_size=1)
    ending.tokenizer.eos_token = ending.tokenizer.convert_ids_to_tokens(tokens[3])
    found = ending.generate(prompts_of(engine)[:1], [GREEDY])[0]
    assert found.token_ids == tokens[: tokens.index(tokens[3])]
    assert found.finish_reason == "stop"


def test_a_request_draws_the_same_alone_and_in_company(engine: OpenVinoEngine) -> None:
    samplings = [Sampling(10 + seed, 1.0, 0.9, seed) for seed in range(6)]
    together = engine.generate(prompts_of(engine), samplings)
    alone = [engine.generate([prompt], [one])[0] for prompt, one in zip(prompts_of(engine), samplings, strict=True)]
    assert together == alone
    assert together == engine.generate(prompts_of(engine), samplings)


def test_another_seed_draws_something_else(engine: OpenVinoEngine) -> None:
    drawn = engine.generate([prompts_of(engine)[0]] * 2, [Sampling(10, 1.0, 1.0, seed) for seed in (1, 2)])
    assert drawn[0].token_ids != drawn[1].token_ids


def test_logprobs_are_those_at_temperature_one(engine: OpenVinoEngine) -> None:
    import torch

    prompt = prompts_of(engine)[1]
    found = engine.generate([prompt], [Sampling(6, 1.3, 0.9, 5, logprobs=True)])[0]
    with torch.no_grad():
        logits = engine.model(torch.tensor([[*prompt, *found.token_ids]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)[range(len(found.token_ids)), list(found.token_ids)]
    torch.testing.assert_close(torch.tensor(found.logprobs), expected, atol=1e-2, rtol=1e-2)


def test_a_stop_string_ends_a_response_as_in_transformers(engine: OpenVinoEngine, folder: Path) -> None:
    plain = TransformersEngine.load(folder, "float32", batch_size=4)
    prompt = prompts_of(engine)[2]
    whole = plain.generate([prompt], [GREEDY])[0].text
    stops = tuple(whole[at : at + 2] for at in range(1, len(whole) - 1) if whole[at : at + 2].isascii())[:1]
    sampling = Sampling(12, 0.0, 1.0, 0, stops)
    assert stops
    assert engine.generate([prompt], [sampling]) == plain.generate([prompt], [sampling])


def test_a_stream_tells_what_generate_returns(engine: OpenVinoEngine) -> None:
    sampling = Sampling(20, 1.0, 1.0, 9)
    stream = engine.stream(prompts_of(engine)[2], sampling, lambda: False)
    pieces: list[str] = []
    result: Generation | None = None
    while result is None:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            result = end.value
    assert result == engine.generate([prompts_of(engine)[2]], [sampling])[0]
    assert "".join(pieces) == result.text
    assert len(pieces) > 1


def test_a_cancelled_stream_ends_and_leaves_nothing_behind(engine: OpenVinoEngine) -> None:
    looks = iter([False, False, True])
    assert len(list(engine.stream(prompts_of(engine)[0], Sampling(200, 1.0, 1.0, 3), lambda: next(looks)))) <= 3
    assert len(engine.generate(prompts_of(engine), [GREEDY] * 6)) == 6


def test_another_process_draws_the_same(engine: OpenVinoEngine, folder: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from pipelines.model.engine import Sampling\n"
        "from pipelines.model.openvino_engine import OpenVinoEngine\n"
        "engine = OpenVinoEngine.load(Path(sys.argv[1]), 'float32', 4)\n"
        "drawn = engine.generate(json.loads(sys.argv[2]), [Sampling(16, 1.0, 0.95, seed) for seed in range(6)])\n"
        "print(json.dumps([one.token_ids for one in drawn]))"
    )
    command = [sys.executable, "-c", code, str(folder), json.dumps(prompts_of(engine))]
    printed = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert printed[0] == printed[1]


def test_a_family_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="gpt2"):
        OpenVinoEngine.load(make_model(tmp_path / "model", family="gpt2", kv_heads=4), "float32", 1)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=str(tmp_path)):
        OpenVinoEngine.load(tmp_path, "float32", 1)


def test_bfloat16_draws_too(tmp_path: Path) -> None:
    engine = OpenVinoEngine.load(make_policy(tmp_path / "model"), "bfloat16", 2)
    drawn = engine.generate(prompts_of(engine)[:3], [Sampling(5, 1.0, 1.0, seed) for seed in range(3)])
    assert [len(one.token_ids) for one in drawn] == [5, 5, 5]
