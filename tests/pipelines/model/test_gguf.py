"""GGUF files: transformers reads back the same model and tokenizer, and what can't be written is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.core.errors import BadInput
from pipelines.core.sections.training import Architecture
from pipelines.model.architecture import build
from pipelines.model.checkpoints import WEIGHTS, load_model, save_model
from pipelines.model.gguf import interleave, pre_tokenizer_name, write_gguf
from pipelines.model.tokenizer import train_bpe
from tests.models import TEXTS, make_policy

IDS = torch.tensor([[5, 80, 300, 7, 41, 0, 2, 199]])


def make_model(folder: Path, **changes: Any) -> Path:
    """A model whose weights are the same in float32, float16 and bfloat16."""
    tokenizer = train_bpe(TEXTS, vocabulary=320)
    torch.manual_seed(4)
    sizes = {"family": "llama", "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "context": 64}
    model = build(Architecture.model_validate(sizes | changes), len(tokenizer) + 3)
    for weight in model.parameters():
        weight.data = (weight.data + torch.randn_like(weight.data) * 0.2).to(torch.float8_e4m3fn).float()
    save_model(model, tokenizer, folder)
    return folder


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_transformers_reads_the_same_model_back(tmp_path: Path, family: str, dtype: Any) -> None:
    # transformers takes the heads of every qwen3 GGUF for 128 wide.
    folder = make_model(tmp_path / "model", family=family, **({"hidden": 256, "heads": 2} if family == "qwen3" else {}))
    write_gguf(folder, tmp_path / "model.gguf", dtype)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(read(IDS).logits, load_model(folder, "float32")(IDS).logits)


def test_an_untied_head_is_written(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = load_model(folder, "float32")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())
    save_model(model, AutoTokenizer.from_pretrained(folder), folder)
    write_gguf(folder, tmp_path / "model.gguf", "float16")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    assert torch.equal(read.lm_head.weight, load_file(folder / WEIGHTS)["lm_head.weight"])


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    write_gguf(folder, tmp_path / "model.gguf", "float16")
    ours = AutoTokenizer.from_pretrained(folder)
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    text = "<|im_start|>user\nThe capital of France, naïve — Ωmega?<|im_end|>\n\n  How can I help"
    ids = ours(text)["input_ids"]
    assert read(text)["input_ids"] == ids
    assert read.decode(ids) == ours.decode(ids) == text
    assert read.chat_template == ours.chat_template
    assert (read.eos_token, read.pad_token, read.bos_token) == (ours.eos_token, ours.pad_token, ours.bos_token)


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_policy(tmp_path / "model")
    for name in ("a.gguf", "b.gguf"):
        write_gguf(folder, tmp_path / name, "bfloat16")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_rows_of_a_head_are_interleaved() -> None:
    weight = torch.arange(8.0)[:, None]
    assert interleave(weight, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_family_that_has_no_writer_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", family="gpt2", kv_heads=4)
    with pytest.raises(BadInput, match="'gpt2'.*llama"):
        write_gguf(folder, tmp_path / "model.gguf", "float16")
    assert not list(tmp_path.glob("*gguf*"))


def test_scaled_positions_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="linear"):
        write_gguf(folder, tmp_path / "model.gguf", "float16")


def test_weights_that_float16_cannot_hold_are_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = load_model(folder, "float32")
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = 1e6
    save_model(model, AutoTokenizer.from_pretrained(folder), folder)
    with pytest.raises(BadInput, match="blk.0.ffn_down.*bfloat16"):
        write_gguf(folder, tmp_path / "model.gguf", "float16")


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(BadInput, match="Metaspace"):
        pre_tokenizer_name({"pre_tokenizer": {"type": "Metaspace"}, "normalizer": None, "model": {"type": "BPE"}})


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=str(tmp_path)):
        write_gguf(tmp_path, tmp_path / "model.gguf", "float16")
