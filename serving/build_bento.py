"""Packs the registered version into a bento: model, tokenizer, template, moderation and the chat application.

In: `.run/register.json`, that version in the registry, `artifacts/train_moderation`. Out: `colloquy:v<N>-<lock>` in
BentoML's store and `.run/build_bento.json`. The tag says what is inside, so a bento that is there is not built again.
"""

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import NotFound

from pipelines.core import artifacts, registry
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.stage import Stage, open_stage
from serving.settings import MODERATION_FOLDER, RELEASE_FILE, SOURCE, Release, bento_tag

SERVICE = "serving.service:Colloquy"
CODE = ("serving", "pipelines/core", "pipelines/model")
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc")

# What the served code imports; versions are those of this environment.
PACKAGES = (
    "aiosqlite",
    "alembic",
    "argon2-cffi",
    "bentoml",
    "fastapi",
    "httpx",
    "jinja2",
    "numpy",
    "openvino",
    "psycopg",
    "psycopg-binary",
    "pydantic",
    "pymongo",
    "ruamel.yaml",
    "safetensors",
    "sqlalchemy",
    "torch",
    "transformers",
    "valkey",
)


def requirements() -> list[str]:
    """Pinned packages; a local build such as 2.13.0+cpu exists nowhere else, so its suffix goes."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in PACKAGES]


def release_of(stage: Stage, number: int, tags: dict[str, str]) -> Release:
    """What the bento says of itself, from the version's tags and the run's chat parameters."""
    tag = bento_tag(number, tags["lock_hash"])
    return Release(
        bento=tag,
        model=tag,
        version=number,
        profile=tags["profile"],
        git_commit=tags["git_commit"],
        lock_hash=tags["lock_hash"],
        simulated_labels=tags["simulated_labels"] == "true",
        verdict=tags["verdict"],
        promoted_by=tags.get("promoted_by"),
        promoted_reason=tags.get("promoted_reason"),
        chat=stage.params.chat,
    )


def exists(store: Any, tag: str) -> bool:
    """Whether `tag` is in BentoML's store of bentos or of models."""
    try:
        store.get(tag)
    except NotFound:
        return False
    return True


def store_model(release: Release) -> None:
    """Download the version into BentoML's model store; the files are moved, not copied."""
    with bentoml.models.create(release.model, labels={"version": str(release.version)}) as model:
        target = Path(model.path)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="download-") as folder:
            downloaded = registry.download(release.version, Path(folder))
            for path in sorted(downloaded.iterdir()):
                path.replace(target / path.name)
        if not (target / "config.json").exists():
            raise BadInput(f"model version {release.version} holds no config.json; it is no Hugging Face folder")


def collect_source(release: Release, source: Path) -> None:
    """Lay out code, moderation model and release file as the service finds them."""
    for code in CODE:
        shutil.copytree(SOURCE / code, source / code, ignore=NOT_CODE)
    (source / "pipelines" / "__init__.py").touch()
    shutil.copytree(artifacts.TRAIN_MODERATION, source / MODERATION_FOLDER)
    write_json(source / RELEASE_FILE, release.to_json())


def build(release: Release) -> None:
    """Build the bento of `release`; its model is in the store."""
    links = os.environ.get("PIP_FIND_LINKS", "").split()
    with tempfile.TemporaryDirectory() as folder:
        collect_source(release, Path(folder))
        name, _, version = release.bento.partition(":")
        bentoml.bentos.build(
            SERVICE,
            name=name,
            version=version,
            build_ctx=folder,
            models=[release.model],
            labels={"model_version": str(release.version), "profile": release.profile},
            description=f"Colloquy, model version {release.version}, {release.verdict}",
            # Locking asks the index about every package for a minute; the versions are pinned, which is enough.
            python={"packages": requirements(), "lock_packages": False, "find_links": links or None},
        )


def build_bento(stage: Stage) -> None:
    """Make sure that the bento of the registered version exists."""
    registered = read_json(artifacts.REGISTERED)
    number = registered["version"]
    version = registry.find(registered["lock_hash"])
    if version is None or version.number != number:
        raise BadInput(f"the registry has no version {number} with lock {registered['lock_hash']}; run register again")
    release = release_of(stage, number, version.tags)
    if not exists(bentoml.models, release.model):
        store_model(release)
    built = not exists(bentoml.bentos, release.bento)
    if built:
        build(release)
    write_json(artifacts.BENTO, {"bento": release.bento, "version": number, "built": built})
    stage.tracker.set_tags({"bento": release.bento})
    print(f"bento {release.bento} {'built' if built else 'was built before'}")


def main() -> None:
    with open_stage("build_bento") as stage:
        build_bento(stage)


if __name__ == "__main__":
    main()
