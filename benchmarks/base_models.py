"""Models that benchmarks run on: the base model of a profile as a policy folder, and a reward model on its trunk."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.core import config
from pipelines.data.downloads import Downloads
from pipelines.ingest import fetch_base_model
from pipelines.model.checkpoints import (
    find_base_model,
    fit_to_tokenizer,
    load_base_model,
    load_base_tokenizer,
    save_model,
)
from pipelines.model.tokenizer import adopt

ROOT = Path(__file__).parents[1]


def write_policy(folder: Path, profile: str = "smol") -> Path:
    """The base model of `profile` with the project's chat template, in bfloat16; returns `folder`."""
    params = config.parse(config.resolve(ROOT, profile, []), "the parameters")
    downloaded = folder.with_name(f"{folder.name}-base")
    fetch_base_model(params.base_model, Downloads.from_environment(os.environ), downloaded)
    base = find_base_model(downloaded)
    model, tokenizer = load_base_model(base, "bfloat16"), adopt(load_base_tokenizer(base))
    fit_to_tokenizer(model, tokenizer)
    save_model(model, tokenizer, folder)
    return folder


def write_reward_model(policy: Path, folder: Path, seed: int = 0) -> Path:
    """A classifier with one output, drawn at random, on the trunk of `policy`; returns `folder`."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1, dtype=torch.bfloat16)
    torch.nn.init.normal_(model.score.weight, std=(model.config.hidden_size + 1) ** -0.5)
    model.config.pad_token_id = tokenizer.pad_token_id
    save_model(model, tokenizer, folder)
    return folder
