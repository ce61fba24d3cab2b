"""Writes a model folder with its tokenizer as one GGUF file, which OpenVINO GenAI, llama.cpp and Ollama read.

Source of names and layout: the GGUF specification of ggml and the constants of the `gguf` package.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, get_tensor_name_map
from gguf.quants import quantize
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from pipelines.core.errors import BadInput
from pipelines.model.checkpoints import WEIGHTS

FAMILIES = {"llama": MODEL_ARCH.LLAMA, "qwen3": MODEL_ARCH.QWEN3}
LARGEST_HALF = torch.finfo(torch.float16).max


class _Format(NamedTuple):
    tensors: GGMLQuantizationType
    file: LlamaFileType


FORMATS = {
    "float16": _Format(GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bfloat16": _Format(GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
}


def write_gguf(folder: Path, path: Path, dtype: Literal["float16", "bfloat16"]) -> None:
    """Write the Hugging Face folder `folder` to `path`, matrices in `dtype` and norms in float32.

    The same folder gives the same bytes; `path` appears only when it is complete.

    Raises:
        BadInput: no model in `folder`, or one that this file can't write.
    """
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{folder} holds no model ({WEIGHTS} is missing); run the stage that writes it")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    check_config(config)
    partial = path.with_name(f".{path.name}.partial")
    writer = GGUFWriter(partial, config.model_type)
    add_settings(writer, config, FORMATS[dtype].file)
    add_tokenizer(writer, AutoTokenizer.from_pretrained(folder, local_files_only=True), config.vocab_size)
    for name, tensor in tensors_of(folder / WEIGHTS, config):
        kind = GGMLQuantizationType.F32 if tensor.ndim == 1 else FORMATS[dtype].tensors
        if kind == GGMLQuantizationType.F16 and tensor.abs().max() > LARGEST_HALF:
            raise BadInput(f"{folder}: {name} has weights beyond float16's {LARGEST_HALF:.0f}; write it in bfloat16")
        writer.add_tensor(name, quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def can_write(config: PreTrainedConfig) -> bool:
    """Whether models of `config` can be written."""
    return _why_not(config) is None


def check_config(config: PreTrainedConfig) -> None:
    """Pass only what GGUF's readers compute as transformers does.

    Raises:
        BadInput: the family or one of its settings can't be written.
    """
    if reason := _why_not(config):
        raise BadInput(f"a model can't be written as GGUF: {reason}")


def _why_not(config: PreTrainedConfig) -> str | None:
    if config.model_type not in FAMILIES:
        return f"its family is {config.model_type!r}; written are {sorted(FAMILIES)}"
    if config.rope_parameters["rope_type"] != "default":
        return f"its rotary positions are scaled ({config.rope_parameters['rope_type']!r})"
    if config.hidden_act != "silu" or config.attention_bias or getattr(config, "mlp_bias", False):
        return "its layers have biases, or another activation than SiLU"
    return None


def add_settings(writer: GGUFWriter, config: PreTrainedConfig, file_type: LlamaFileType) -> None:
    """Sizes and constants of the network."""
    writer.add_file_type(file_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def pre_tokenizer_name(backend: dict[str, Any]) -> str:
    """GGUF's name for the way in which a tokenizer (tokenizer.json) cuts text before it merges bytes.

    Raises:
        BadInput: it is not byte-level BPE with GPT-2's pattern, or cuts in yet another way.
    """
    cut = backend["pre_tokenizer"] or {}
    parts = cut.get("pretokenizers", [cut])
    digits = [part for part in parts if part.get("type") == "Digits" and part["individual_digits"]]
    levels = [part for part in parts if part.get("type") == "ByteLevel" and part["use_regex"]]
    known = len(levels) == 1 and len(digits) + len(levels) == len(parts) and not levels[0]["add_prefix_space"]
    if backend["model"]["type"] != "BPE" or backend["normalizer"] or not known:
        raise BadInput(f"a tokenizer can't be written as GGUF: it is not GPT-2's byte-level BPE but cuts by {cut}")
    return "smollm" if digits else "gpt-2"


def add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Tokens, merges, special tokens and the chat template; a row of the embedding without a token is named [PAD…]."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    special = set(tokenizer.all_special_ids) | {token["id"] for token in backend["added_tokens"] if token["special"]}
    names = {place: token for token, place in tokenizer.get_vocab().items()}
    tokens = [names.get(place, f"[PAD{place}]") for place in range(rows)]
    types = [
        TokenType.CONTROL if place in special else TokenType.NORMAL if place in names else TokenType.UNUSED
        for place in range(rows)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(backend))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in backend["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def tensors_of(weights: Path, config: PreTrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """GGUF name and float32 values of each weight, in order of name, one at a time in memory."""
    names = get_tensor_name_map(FAMILIES[config.model_type], config.num_hidden_layers)
    rotated = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with safe_open(weights, framework="pt") as file:
        for name in sorted(file.keys()):
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            tensor = file.get_tensor(name).float()
            projection = name.split(".")[-2]
            if config.model_type == "llama" and projection in rotated:
                tensor = interleave(tensor, rotated[projection])
            written = names.get_name(name, try_suffixes=(".weight",))
            assert written is not None, name
            yield written, tensor


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a projection [heads × D, H] for rotary embeddings of neighbours instead of halves.

    transformers turns value i of a head with value i + D/2, ggml's llama 2i with 2i + 1.
    """
    halves = weight.view(heads, 2, -1, weight.shape[-1])
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()
