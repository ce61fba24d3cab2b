"""Which engine draws: the one that the parameters name, or the one that measures fastest, its loading counted in."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from pipelines.core.errors import BadInput
from pipelines.model.engine import Engine, TransformersEngine

Name = Literal["transformers", "openvino", "vllm"]


def choose() -> Name:
    """What `auto` stands for: vLLM on a GPU where it is installed, transformers everywhere else.

    Seconds of processor time for loading and drawing on one thread of a CPU, transformers and OpenVINO:
    SmolLM2-135M in bfloat16, 20 prompts x 5 responses x 64 tokens: 13.9 (0.5 of them loading) and 16.8 (4.4);
    a model of 0.7 M parameters in float32, 12 x 4 x 24: 0.2 and 0.8; 60 x 5 x 64: 1.3 and 6.9.
    Loading aside OpenVINO is the faster one at 135M, so it is worth naming for runs that draw much more.
    """
    return "vllm" if torch.cuda.is_available() and find_spec("vllm") else "transformers"


def load_engine(folder: Path, dtype: str, batch_size: int, engine: Literal["auto"] | Name) -> Engine:
    """The model in `folder` behind `engine`, at most `batch_size` requests at once.

    Raises:
        BadInput: no model in `folder`, or one that the engine can't run, or the engine is not installed.
    """
    name = choose() if engine == "auto" else engine
    if name == "vllm":
        from pipelines.model.vllm_engine import VllmEngine

        return VllmEngine.load(folder, dtype, batch_size)
    if name == "openvino":
        from pipelines.model.openvino_engine import OpenVinoEngine

        if find_spec("openvino_genai") is None:
            raise BadInput("engine 'openvino' needs openvino-genai: run `make setup` again, or choose 'transformers'")
        return OpenVinoEngine.load(folder, dtype, batch_size)
    return TransformersEngine.load(folder, dtype, batch_size)
