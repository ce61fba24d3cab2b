"""Model folders: reads a base model in whichever form it comes, loads and saves Hugging Face folders."""

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pipelines.core.errors import BadInput

WEIGHTS = "model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class BaseModel(NamedTuple):
    """Where a base model lies: a Hugging Face folder, or the folder of one GGUF file."""

    folder: Path
    gguf_file: str | None


def find_base_model(root: Path) -> BaseModel:
    """The one base model under `root`.

    Raises:
        BadInput: there is none, or more than one.
    """
    ggufs = sorted(root.rglob("*.gguf")) if root.is_dir() else []
    folders = sorted(path.parent for path in root.rglob("config.json")) if root.is_dir() else []
    if len(ggufs) + len(folders) != 1:
        found = [str(path.relative_to(root)) for path in [*ggufs, *folders]]
        raise BadInput(
            f"{root} must hold one GGUF file or one Hugging Face folder with a config.json, found {found or 'none'}; "
            "check base_model in the parameters and run ingest again"
        )
    return BaseModel(ggufs[0].parent, ggufs[0].name) if ggufs else BaseModel(folders[0], None)


def load_base_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """The tokenizer that a model came with.

    Raises:
        BadInput: the files can't be read as one.
    """
    try:
        return AutoTokenizer.from_pretrained(base.folder, gguf_file=base.gguf_file, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{base.folder} has no tokenizer that can be read: {error}") from error


def load_base_model(base: BaseModel, dtype: str) -> PreTrainedModel:
    """The base model's weights in `dtype`, quantized ones expanded.

    Raises:
        BadInput: the files can't be read as a causal language model.
    """
    packed = base.gguf_file is not None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.folder,
            gguf_file=base.gguf_file,
            dtype=torch.float32 if packed else DTYPES[dtype],
            local_files_only=True,
            use_safetensors=None if packed else True,  # weights in a pickle could run code
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"the base model in {base.folder} can't be read as a language model: {error}") from error
    if packed:
        # The weights are plain numbers now, but transformers still takes the model for a quantized one.
        model.hf_quantizer = None  # type: ignore[assignment]
        del model.config.quantization_config
        cast_weights(model, dtype)
    return model


def cast_weights(model: PreTrainedModel, dtype: str) -> None:
    """Round the weights to `dtype` in place and leave buffers as they are, as loading in `dtype` does.

    `model.to(dtype)` would round the rotary frequencies too, and the model would answer differently once reloaded.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(DTYPES[dtype])


def load_model(folder: Path, dtype: str) -> PreTrainedModel:
    """A causal language model from a folder that `save_model` wrote.

    Raises:
        BadInput: there is no model in `folder`.
    """
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder} holds no model (config.json is missing); run the stage that writes it")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], local_files_only=True)


def fit_to_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make room for tokens that were added, and let the model's settings name the tokenizer's special tokens."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    if len(tokenizer) > embeddings.num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id


def own_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights by name, without those that are tied to others and come back by loading."""
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights, tokenizer and chat template; the folder appears only when it is complete."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Not save_pretrained: unwrapping a parallel model imports DeepSpeed, seconds for a model that is not wrapped.
    # One key of metadata: several are written in a new order each time, and equal weights must give equal bytes.
    save_file(own_weights(model), partial / WEIGHTS, metadata={"format": "pt"})
    model.config.dtype = model.dtype
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(partial)
    if model.can_generate():  # a classifier has no such settings
        model.generation_config.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
