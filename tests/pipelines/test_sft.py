"""SFT: the loss is on assistant tokens only, training lowers it on held-out demonstrations, and reruns are equal."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_rows
from pipelines.model.rendering import Rendered, render_conversation
from pipelines.sft import held_out_loss, within_budget
from tests.models import make_policy
from tests.workspaces import make_workspace, run_stage

SETTINGS = ["sft.learning_rate=1e-2", "sft.epochs=4", "sft.dtype=float32", "sft.batch_conversations=4"]


def demonstration(number: int) -> dict[str, object]:
    turns = [
        {"role": "user", "content": f"question {number}"},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
    return {"id": str(number), "messages": turns, "category": "facts", "source": "us", "license": "CC-BY-4.0"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("sft"), SETTINGS)
    make_policy(workspace / artifacts.PRETRAIN)
    write_rows(workspace / artifacts.SFT_TRAIN, (demonstration(number) for number in range(12)))
    write_rows(workspace / artifacts.SFT_HELD_OUT, (demonstration(number) for number in range(100, 103)))
    done = run_stage(workspace, "pipelines.sft")
    assert done.returncode == 0, done.stderr
    return workspace


def test_held_out_loss_falls(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("sft"))
    assert metrics["held_out_loss"] < 0.7 * metrics["held_out_loss_before"]


def test_the_folder_is_a_whole_model_in_the_dtype_of_its_input(finished: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished / artifacts.SFT)
    assert model.dtype == AutoModelForCausalLM.from_pretrained(finished / artifacts.PRETRAIN).dtype
    assert AutoTokenizer.from_pretrained(finished / artifacts.SFT).chat_template


def test_the_same_inputs_give_the_same_bytes(finished: Path) -> None:
    weights = finished / artifacts.SFT / "model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(finished / artifacts.SFT)
    assert run_stage(finished, "pipelines.sft").returncode == 0
    assert weights.read_bytes() == before


def test_the_mask_covers_the_assistants_words_and_their_end(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_policy(tmp_path))
    chat = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "one two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    ids, assistant = render_conversation(tokenizer, chat)
    learned = tokenizer.decode([token for token, learns in zip(ids, assistant, strict=True) if learns])
    assert learned == "one two<|im_end|>four<|im_end|>"


def test_a_conversation_without_an_assistant_is_refused(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_policy(tmp_path))
    with pytest.raises(BadInput, match="no assistant turn"):
        render_conversation(tokenizer, [{"role": "user", "content": "Hello!"}])


def test_held_out_loss_is_that_of_the_learned_tokens(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_policy(tmp_path))
    ids = [5, 6, 7, 8, 9]
    logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -(logprobs[2, 8] + logprobs[3, 9]).item() / 2
    assert held_out_loss(model, [Rendered(ids, [0, 0, 0, 1, 1])], torch.float32) == pytest.approx(by_hand, rel=1e-5)


def test_the_token_budget_holds() -> None:
    conversations = [Rendered([1] * length, [1] * length) for length in (5, 9, 4, 3)]
    assert [len(one.ids) for one in within_budget(conversations, 12)] == [5, 4, 3]
    with pytest.raises(BadInput, match="max_train_tokens 2"):
        within_budget(conversations, 2)
