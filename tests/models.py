"""A two-layer model with a small tokenizer, made in a moment: what tests of trainers and engines run on."""

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from pipelines.core.sections.training import Architecture
from pipelines.model.architecture import build
from pipelines.model.tokenizer import train_bpe

TEXTS = ["The capital of France is Paris.", "Hello! How can I help you today?", "one two three four five six"] * 4
SIZES = Architecture(family="llama", layers=2, hidden=32, heads=4, kv_heads=2, context=256)


def make_policy(folder: Path, seed: int = 0) -> Path:
    """A random language model with our tokenizer and template."""
    tokenizer = train_bpe(TEXTS, vocabulary=320)
    torch.manual_seed(seed)
    model = build(SIZES, len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_reward_model(policy: Path, folder: Path, seed: int = 1) -> Path:
    """A classifier on the trunk of `policy` with a random head."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (policy / name).exists():
            (folder / name).write_bytes((policy / name).read_bytes())
    return folder
