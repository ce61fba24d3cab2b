"""SFT: the loss is on assistant tokens only, training lowers it on held-out demonstrations, and reruns are equal."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pipelines import sft
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows, write_rows
from pipelines.model.rendering import Rendered, rendered_conversations
from pipelines.sft import within_budget
from pipelines.training.supervised import held_out_loss, labels_of, learned_loss
from tests.models import make_policy
from tests.pipelines.in_process import enter_workspace, exit_code

SETTINGS = ["sft.learning_rate=1e-2", "sft.epochs=4", "sft.dtype=float32", "sft.batch_conversations=4"]


def demonstration(number: int) -> dict[str, object]:
    turns = [
        {"role": "user", "content": f"question {number}"},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
    return {"id": str(number), "messages": turns, "category": "facts", "source": "us", "license": "CC-BY-4.0"}


def make_inputs() -> None:
    make_policy(artifacts.PRETRAIN)
    write_rows(artifacts.SFT_TRAIN, (demonstration(number) for number in range(12)))
    write_rows(artifacts.SFT_HELD_OUT, (demonstration(number) for number in range(100, 103)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sft")
    with pytest.MonkeyPatch.context() as patch:
        enter_workspace(folder, patch, SETTINGS)
        make_inputs()
        assert exit_code(sft.main) == 0
        yield folder


def test_held_out_loss_falls(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("sft"))
    assert metrics["held_out_loss"] < 0.7 * metrics["held_out_loss_before"]


def test_the_reported_loss_is_that_of_the_saved_weights(finished: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(finished / artifacts.SFT)
    model = AutoModelForCausalLM.from_pretrained(finished / artifacts.SFT)
    held_out = list(rendered_conversations(read_rows(finished / artifacts.SFT_HELD_OUT), tokenizer, max_tokens=256))
    reported = read_json(finished / artifacts.metrics_of("sft"))["held_out_loss"]
    assert held_out_loss(model, held_out) == pytest.approx(reported, rel=1e-5)


def test_the_folder_is_a_whole_model_in_the_dtype_of_its_input(finished: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished / artifacts.SFT)
    assert model.dtype == AutoModelForCausalLM.from_pretrained(finished / artifacts.PRETRAIN).dtype
    assert AutoTokenizer.from_pretrained(finished / artifacts.SFT).chat_template


def test_the_same_inputs_give_the_same_bytes(finished: Path) -> None:
    weights = finished / artifacts.SFT / "model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(finished / artifacts.SFT)
    assert exit_code(sft.main) == 0
    assert weights.read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_stage_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, "sft.learning_rate=1e30"])
    make_inputs()
    assert exit_code(sft.main) == ExitCode.BAD_INPUT
    assert "lower the learning rate" in read_json(artifacts.FAILURES / "sft.json")["error"]
    assert not artifacts.SFT.exists()


def test_held_out_loss_is_that_of_the_learned_tokens(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_policy(tmp_path))
    ids = [5, 6, 7, 8, 9]
    logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -(logprobs[2, 8] + logprobs[3, 9]).item() / 2
    assert held_out_loss(model, [Rendered(ids, [0, 0, 0, 1, 1])]) == pytest.approx(by_hand, rel=1e-5)


def test_the_loss_of_a_padded_batch_is_that_of_its_rows(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_policy(tmp_path)).eval().requires_grad_(False)

    def loss(ids: list[list[int]], masks: list[list[int]], labels: list[list[int]]) -> float:
        batch = {"input_ids": ids, "attention_mask": masks, "labels": labels}
        return float(learned_loss(model, {name: torch.tensor(rows) for name, rows in batch.items()}))

    long, short = labels_of([5, 6, 7, 8], [0, 1, 1, 1]), labels_of([9, 4], [0, 1])
    together = loss([[5, 6, 7, 8], [9, 4, 0, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]], [long, [*short, -100, -100]])
    alone = loss([[5, 6, 7, 8]], [[1] * 4], [long]) + loss([[9, 4]], [[1] * 2], [short])
    assert together == pytest.approx(alone, rel=1e-5)


def test_packed_conversations_do_not_see_each_other(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_policy(tmp_path)).eval().requires_grad_(False)
    rows = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in ([5, 6, 7, 8], [9, 4], [11, 12, 13])]
    losses = [
        float(learned_loss(model, DataCollatorForLanguageModeling(0, padding_free=packed)(rows)))
        for packed in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    alone = sum(float(learned_loss(model, DataCollatorForLanguageModeling(0)([row]))) for row in rows)
    assert losses[0] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("setting", ["sft.lora={rank: 4, alpha: 8}", "sft.packing=true", "sft.neftune_noise=5"])
def test_other_ways_to_train_learn_too(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, setting])
    make_inputs()
    assert exit_code(sft.main) == 0
    metrics = read_json(artifacts.metrics_of("sft"))
    assert metrics["held_out_loss"] < 0.95 * metrics["held_out_loss_before"]
    assert not any("lora" in name for name in load_file(artifacts.SFT / "model.safetensors"))


def test_four_bits_without_a_gpu_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, "sft.four_bit_base=true"])
    make_inputs()
    assert exit_code(sft.main) == ExitCode.BAD_INPUT
    assert "needs sft.lora and a CUDA GPU" in read_json(artifacts.FAILURES / "sft.json")["error"]


def test_the_token_budget_holds() -> None:
    conversations = [Rendered([1] * length, [1] * length) for length in (5, 9, 4, 3)]
    assert [len(one.ids) for one in within_budget(conversations, 12)] == [5, 4, 3]
    with pytest.raises(BadInput, match="max_train_tokens 2"):
        within_budget(conversations, 2)
