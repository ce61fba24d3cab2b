"""The engine that is named is loaded, and `auto` takes what this machine has."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.core.errors import BadInput
from pipelines.model import engine_choice
from pipelines.model.engine import TransformersEngine
from pipelines.model.engine_choice import choose, load_engine
from tests.models import make_policy


@pytest.mark.parametrize(
    ("gpu", "installed", "expected"),
    [(True, True, "vllm"), (True, False, "transformers"), (False, True, "transformers")],
)
def test_auto_takes_vllm_on_a_gpu_only(
    gpu: bool, installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: object() if installed else None)
    assert choose() == expected


@pytest.mark.parametrize("name", ["auto", "transformers"])
def test_transformers_is_loaded_by_name(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(load_engine(make_policy(tmp_path / "model"), "float32", 2, name), TransformersEngine)


def test_openvino_is_loaded_by_name(tmp_path: Path) -> None:
    pytest.importorskip("openvino_genai", reason="OpenVINO GenAI is not installed")
    engine = load_engine(make_policy(tmp_path / "model"), "float32", 2, "openvino")
    assert type(engine).__name__ == "OpenVinoEngine"
    assert engine.model.config.model_type == "llama"


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino-genai"), ("vllm", "vllm==")])
def test_an_engine_that_is_not_installed_is_named(
    name: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInput, match=package):
        load_engine(tmp_path, "float32", 1, name)
