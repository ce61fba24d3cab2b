"""A tiny model that knows a little English, and a workspace around it in which evaluate and gate run for real."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.core import artifacts
from pipelines.core.config import resolve
from pipelines.core.jsonl import read_rows, write_json, write_rows
from pipelines.core.sections.training import Architecture
from pipelines.core.workspace import write_params
from pipelines.model.architecture import build
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator
from pipelines.model.tokenizer import train_bpe
from tests.models import make_reward_model

ROOT = Path(__file__).parents[2]


def demonstrations() -> list[dict]:
    return list(read_rows(ROOT / "pipelines/datasets/demonstrations.jsonl"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: two layers, trained for a moment on the demonstrations."""
    folder = tmp_path_factory.mktemp("model")
    rows = demonstrations()
    tokenizer = train_bpe([row["messages"][-1]["content"] for row in rows], vocabulary=700)
    torch.manual_seed(0)
    model = build(Architecture(family="llama", layers=2, hidden=64, heads=4, kv_heads=2, context=512), len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    text = "".join(tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(80):
        start = torch.randint(len(ids) - 129, (8,), generator=torch.Generator().manual_seed(step))
        batch = torch.stack([ids[at : at + 128] for at in start.tolist()])
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_noised(source: Path, target: Path, noise: float) -> None:
    """`source` with normal noise of `noise` times each tensor's deviation."""
    model = AutoModelForCausalLM.from_pretrained(source)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            deviation = parameter.float().std() if parameter.dim() > 1 else parameter.float().abs().mean()
            parameter.add_(torch.randn(parameter.shape, generator=generator) * deviation * noise)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


Workspace = Callable[[float], Path]


@pytest.fixture
def workspace(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Makes and enters a workspace whose candidate is the baseline with that much noise on its weights."""

    def make(noise: float) -> Path:
        folder = tmp_path / f"noise-{noise}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_params(folder, resolve(ROOT, "tiny", []))
        Path("evals").symlink_to(ROOT / "evals")
        rows = demonstrations()
        Path("artifacts").mkdir()
        for path in (artifacts.PRETRAIN, artifacts.SFT):
            path.symlink_to(tiny_model)
        save_noised(tiny_model, artifacts.PPO, noise)
        make_reward_model(tiny_model, artifacts.REWARD_MODEL)
        shape = FeatureShape(hash_bits=8, shortest=3, longest=4, word_ngrams=1, word_weight=1.0)
        weights = np.zeros((2, 256), np.float32)
        NGramModerator(["hate", "violence"], shape, weights, np.full(2, -3, np.float32)).save(
            artifacts.TRAIN_MODERATION
        )
        documents = [
            {
                "id": f"document-{number}",
                "text": "\n".join(row["messages"][-1]["content"] for row in rows[5 * number : 5 * number + 5]),
                "source": "test",
                "license": "MIT",
                "metadata": {},
            }
            for number in range(30)
        ]
        write_rows(artifacts.CORPUS_HELD_OUT, documents[:20])
        write_rows(artifacts.CORPUS_TRAIN, documents[20:])
        prompts = [
            {
                "id": f"prompt-{number}",
                "messages": [{"role": "user", "content": row["messages"][-2]["content"]}],
                "category": row["category"],
                "source": "test",
                "license": "MIT",
            }
            for number, row in enumerate(rows[:40])
        ]
        write_rows(artifacts.SFT_TRAIN, prompts[:10])
        write_rows(artifacts.SFT_HELD_OUT, (prompts[n] | {"messages": rows[n]["messages"]} for n in range(5)))
        write_rows(artifacts.PROMPTS_LABELING, prompts[10:20])
        write_rows(artifacts.PROMPTS_ALIGNMENT, prompts[20:30])
        write_rows(artifacts.PROMPTS_HELD_OUT, prompts[30:])
        preferences = [
            {
                "id": f"preference-{number}",
                "prompt": prompts[number],
                "chosen": rows[number]["messages"][-1]["content"],
                "rejected": "no no no",
                "weight": 1.0,
                "simulated": True,
            }
            for number in range(6)
        ]
        write_rows(artifacts.PREFERENCES_TRAIN, preferences)
        write_rows(artifacts.PREFERENCES_HELD_OUT, preferences)
        write_json(artifacts.INGEST_MANIFEST, {"sources": [{"name": "test", "license": "MIT", "use": "corpus"}]})
        write_json(artifacts.metrics_of("ppo"), {"kl_final": 0.5})
        write_json(artifacts.metrics_of("prepare_preferences"), {"pairwise_agreement": 0.8})
        write_json(artifacts.metrics_of("reward_model"), {"held_out_accuracy": 0.7})
        return folder

    return make
