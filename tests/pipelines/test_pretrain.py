"""Pretraining: it learns, it is repeatable, 0 steps change nothing, and it stops when the loss is no number."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from pipelines import pretrain
from pipelines.core import artifacts, tracking
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json
from pipelines.data.shards import ShardManifest, TokenizedDocument, open_tokens, token_dtype, write_split
from pipelines.model.architecture import build
from pipelines.model.checkpoints import DTYPES, load_model
from pipelines.model.tokenizer import train_bpe
from pipelines.training.next_token import LanguageModelLoss, held_out_loss, train_step
from pipelines.training.optimizer import MasterAdamW
from tests.models import SIZES, TEXTS, make_policy
from tests.pipelines.in_process import enter_workspace, exit_code

VOCABULARY = 320
SMALL = [
    "pretrain.architecture.hidden=32",
    "pretrain.steps=30",
    "pretrain.batch_sequences=4",
    "pretrain.sequence_tokens=32",
    "pretrain.learning_rate=1e-2",
]


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: Sequence[str] = ()) -> None:
    """A workspace with a tokenizer and shards."""
    enter_workspace(folder, monkeypatch, [*SMALL, *overrides])
    make_inputs(folder)


def make_inputs(workspace: Path) -> None:
    """A tokenizer and shards in `workspace`."""
    train_bpe(TEXTS, VOCABULARY).save_pretrained(workspace / artifacts.TRAIN_TOKENIZER)
    # The text counts up, so that the next token is easy to learn.
    documents = [TokenizedDocument([3 + (start + n) % 40 for n in range(20)], 60, "test") for start in range(100)]
    train, held_out = (
        write_split(
            workspace / artifacts.TOKENIZE_CORPUS,
            split,
            lambda _skip, given=given: iter(given),
            VOCABULARY,
            0,
            10_000,
            500,
        )
        for split, given in (("train", documents), ("held_out", documents[:10]))
    )
    dtype = token_dtype(VOCABULARY).str
    ShardManifest(dtype, VOCABULARY, 0, train, held_out).write(workspace / artifacts.TOKENS_MANIFEST)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert exit_code(pretrain.main) == 0
        yield folder


def test_it_learns(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("pretrain"))
    assert metrics["held_out_loss"] < 0.5 * math.log(VOCABULARY)
    assert metrics["held_out_perplexity"] == pytest.approx(math.exp(metrics["held_out_loss"]))
    # 21 tokens with the end token stand for 60 bytes.
    assert metrics["held_out_bits_per_byte"] == pytest.approx(metrics["held_out_loss"] / math.log(2) * 21 / 60)
    assert (metrics["passed_through"], metrics["trained_tokens"]) == (0, 30 * 4 * 32)


def test_the_metrics_are_those_of_the_saved_weights(finished: Path) -> None:
    model = load_model(finished / artifacts.PRETRAIN, "float32").eval()
    manifest = ShardManifest.read(finished / artifacts.TOKENS_MANIFEST)
    tokens = open_tokens(finished / artifacts.TOKENIZE_CORPUS, manifest.held_out, manifest.dtype)
    measured = held_out_loss(LanguageModelLoss(model, False), tokens, 32, 1.0, torch.device("cpu"))
    assert measured.loss == pytest.approx(
        read_json(finished / artifacts.metrics_of("pretrain"))["held_out_loss"], rel=1e-4
    )


def test_the_same_inputs_give_the_same_bytes(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    assert exit_code(pretrain.main) == 0
    weights = artifacts.PRETRAIN / "model.safetensors"
    assert weights.read_bytes() == (finished / weights).read_bytes()


def test_progress_and_curves_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: dict[str, list[int]] = {}

    class Recorder(tracking.NoTracker):
        def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
            for name in metrics:
                logged.setdefault(name, []).append(step)

    monkeypatch.setattr(tracking, "NoTracker", Recorder)
    enter(tmp_path, monkeypatch)
    assert exit_code(pretrain.main) == 0
    assert "step 30/30, loss" in capsys.readouterr().out
    assert logged["loss"] == logged["grad_norm"] == logged["tokens_per_s"] == list(range(1, 31))
    assert logged["held_out_perplexity"][:-1] == [7, 14, 21, 28]


def test_zero_steps_pass_the_base_model_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch, ["pretrain.steps=0", "base_model={kind: folder, path: /elsewhere, sha256: null}"])
    base = load_model(make_policy(artifacts.INGEST_BASE_MODEL), "float32")
    assert exit_code(pretrain.main) == 0
    metrics = read_json(artifacts.metrics_of("pretrain"))
    assert (metrics["passed_through"], metrics["trained_tokens"]) == (1, 0)
    assert metrics["held_out_tokens"] > 0
    passed = load_model(artifacts.PRETRAIN, "float32").state_dict()
    assert all(torch.equal(weight, passed[name]) for name, weight in base.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["pretrain.steps=0"], "there is no model"),
        (["pretrain.accumulate=3"], "can't be split into 3 equal"),
        (["pretrain.sequence_tokens=400"], "fewer than pretrain.sequence_tokens"),
        (["pretrain.sequence_tokens=128", "pretrain.architecture.context=64"], "the model's context is 64"),
        (["pretrain.learning_rate=1e38", "pretrain.weight_decay=1e30"], "pretrain: loss nan"),
    ],
)
def test_what_can_not_work_is_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    reason: str,
) -> None:
    enter(tmp_path, monkeypatch, overrides)
    assert exit_code(pretrain.main) == ExitCode.BAD_INPUT
    assert reason in capsys.readouterr().err
    assert not artifacts.PRETRAIN.exists()


def test_the_loss_of_an_untrained_model_is_that_of_guessing() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (4, 33))
    loss_of = LanguageModelLoss(build(SIZES, VOCABULARY), False)
    assert loss_of(ids).item() == pytest.approx(math.log(VOCABULARY), rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_on_one_batch_lower_its_loss(dtype: str) -> None:
    torch.manual_seed(0)
    model = build(SIZES, VOCABULARY)
    optimizer = MasterAdamW(model, dtype, 1e-2, 0.1)
    ids = torch.randint(0, VOCABULARY, (4, 33))
    losses = [train_step(LanguageModelLoss(model, False), optimizer, [ids], 1e-2, 1.0).loss for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    assert {weight.dtype for weight in model.parameters()} == {DTYPES[dtype]}


def test_accumulated_micro_batches_are_one_step() -> None:
    weights = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = build(SIZES, VOCABULARY)
        optimizer = MasterAdamW(model, "float32", 1e-2, 0.1)
        ids = torch.randint(0, VOCABULARY, (8, 33), generator=torch.Generator().manual_seed(1))
        results = [
            train_step(LanguageModelLoss(model, False), optimizer, ids.chunk(parts), 1e-3, 0.5) for _ in range(3)
        ]
        weights.append((torch.cat([weight.flatten() for weight in model.parameters()]), results))
    (whole, of_whole), (split, of_split) = weights
    assert torch.allclose(whole, split, atol=1e-5)
    for one, other in zip(of_whole, of_split, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_loss_that_is_no_number_changes_no_weight() -> None:
    model = build(SIZES, VOCABULARY)
    optimizer = MasterAdamW(model, "float32", 1e-2, 0.1)
    with torch.no_grad():
        model.get_input_embeddings().weight[7, 0] = math.nan
    before = [weight.clone() for weight in model.parameters()]
    result = train_step(LanguageModelLoss(model, False), optimizer, [torch.full((1, 9), 7)], 1e-2, 1.0)
    assert not result.finite
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(), new.nan_to_num())


def test_norms_are_not_decayed() -> None:
    decayed, spared = MasterAdamW(build(SIZES, VOCABULARY), "float32", 1e-2, 0.5).param_groups
    assert {weight.dim() for weight in decayed["params"]} == {2}
    assert {weight.dim() for weight in spared["params"]} == {1}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
