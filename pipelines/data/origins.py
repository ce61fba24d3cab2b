"""Where a source's `origin` points: the four forms that params.yaml may name."""

import re
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import BadInput

FORMS = "pypi:name==version, https://…, file:path or hub:repo@revision"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class PackageOrigin(NamedTuple):
    """A file of a Python package registry; which one of the version's files, its hash says."""

    name: str
    version: str


class WebOrigin(NamedTuple):
    """One file behind a URL."""

    url: str


class FileOrigin(NamedTuple):
    """One file on this machine."""

    path: Path


class HubOrigin(NamedTuple):
    """A Hugging Face data set at a commit."""

    repo: str
    revision: str


Origin = PackageOrigin | WebOrigin | FileOrigin | HubOrigin


def parse_package(text: str) -> PackageOrigin:
    """`name==version` as its parts.

    Raises:
        BadInput: no exact version is named.
    """
    name, equals, version = text.partition("==")
    if not (name and equals and version):
        raise BadInput(f"package {text!r} is not of the form name==version")
    return PackageOrigin(name.strip(), version.strip())


def require_commit(repo: str, revision: str) -> None:
    """Refuse a revision that can move: a branch or tag gives other bytes tomorrow.

    Raises:
        BadInput: `revision` is not a full commit hash.
    """
    if not _COMMIT.fullmatch(revision):
        raise BadInput(f"hub:{repo}@{revision}: the revision must be a commit of 40 hex digits, not a branch or tag")


def parse_origin(text: str) -> Origin:
    """The place that `text` names.

    Raises:
        BadInput: none of the four forms.
    """
    kind, _, rest = text.partition(":")
    if kind == "pypi":
        return parse_package(rest)
    if kind in ("http", "https") and rest.startswith("//"):
        return WebOrigin(text)
    if kind == "file" and rest:
        return FileOrigin(Path(rest.removeprefix("//")))
    if kind == "hub" and "@" in rest:
        repo, _, revision = rest.rpartition("@")
        require_commit(repo, revision)
        return HubOrigin(repo, revision)
    raise BadInput(f"origin {text!r} is not one of: {FORMS}")
