"""Model folders: every form of a base model is found and loaded, what is saved comes back, absence is said clearly."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json
from pipelines.core.sections.training import Architecture
from pipelines.model import checkpoints
from pipelines.model.architecture import build
from pipelines.model.tokenizer import adopt, train_bpe
from tests.models import TEXTS, make_policy

SIZES = Architecture(family="llama", layers=1, hidden=32, heads=2, kv_heads=2, context=64)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe(TEXTS, 300)


def write_gguf(path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A one-layer llama of random quantized weights, as a package may carry it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if index < 3 else 1 for index in range(len(tokens))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]  # type: ignore[attr-defined]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    block = {"attn_q": (32, 32), "attn_k": (32, 32), "attn_v": (32, 32), "attn_output": (32, 32)}
    block |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    matrices = {"token_embd.weight": random(len(tokens), 32)}
    matrices |= {f"blk.0.{name}.weight": random(*shape) for name, shape in block.items()}
    for name, values in matrices.items():
        packed = gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, torch.ones(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_comes_back(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, dtype: str) -> None:
    torch.manual_seed(0)
    model = build(SIZES, len(tokenizer))
    checkpoints.cast_weights(model, dtype)
    checkpoints.fit_to_tokenizer(model, tokenizer)
    checkpoints.save_model(model, tokenizer, tmp_path / "model")
    loaded = checkpoints.load_model(tmp_path / "model", dtype)
    assert loaded.dtype == checkpoints.DTYPES[dtype]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    config = read_json(tmp_path / "model" / "config.json")
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], dtype)
    assert (loaded.config.pad_token_id, loaded.generation_config.eos_token_id) == (0, 2)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == tokenizer.chat_template


def test_saving_again_replaces_the_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "left_over.bin").touch()
    checkpoints.save_model(build(SIZES, len(tokenizer)), tokenizer, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "left_over.bin").exists()


def test_a_gguf_base_model_becomes_plain_weights(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "base").mkdir()
    write_gguf(tmp_path / "base" / "model.gguf", tokenizer)
    base = checkpoints.find_base_model(tmp_path)
    model = checkpoints.load_base_model(base, "bfloat16")
    adopted = adopt(checkpoints.load_base_tokenizer(base))
    checkpoints.fit_to_tokenizer(model, adopted)
    assert adopted.get_vocab() == tokenizer.get_vocab()
    assert adopted("The capital of France").input_ids == tokenizer("The capital of France").input_ids
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert all(weight.requires_grad for weight in model.parameters())
    checkpoints.save_model(model, adopted, tmp_path / "saved")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(checkpoints.load_model(tmp_path / "saved", "bfloat16")(input_ids=ids).logits, expected)


def test_a_hugging_face_folder_is_a_base_model(tmp_path: Path) -> None:
    make_policy(tmp_path / "base_model")
    base = checkpoints.find_base_model(tmp_path)
    assert base == (tmp_path / "base_model", None)
    assert checkpoints.load_base_model(base, "bfloat16").dtype == torch.bfloat16
    assert checkpoints.load_base_tokenizer(base).convert_tokens_to_ids("<|im_end|>") == 2


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = make_policy(tmp_path / "base_model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="no file named model.safetensors"):
        checkpoints.load_base_model(checkpoints.find_base_model(tmp_path), "float32")


def test_added_tokens_get_embeddings(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build(SIZES, len(tokenizer) - 2)
    checkpoints.fit_to_tokenizer(model, tokenizer)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == model.config.vocab_size


def test_a_base_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found none"):
        checkpoints.find_base_model(tmp_path / "nowhere")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(BadInput, match=r"a\.gguf.*b\.gguf"):
        checkpoints.find_base_model(tmp_path)


def test_a_broken_base_model_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    base = checkpoints.find_base_model(tmp_path)
    with pytest.raises(BadInput, match="can't be read as a language model"):
        checkpoints.load_base_model(base, "float32")
    with pytest.raises(BadInput, match="no tokenizer"):
        checkpoints.load_base_tokenizer(base)


def test_a_folder_without_a_model_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run the stage"):
        checkpoints.load_model(tmp_path, "float32")
