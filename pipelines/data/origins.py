"""Where a source's `origin` points: the forms that params.yaml may name."""

import re
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import BadInput

FORMS = (
    "pypi:name==version, npm:name@version, debian:name=version, https://…, file:path, conversations:folder or "
    "hub:repo@revision"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# An exact version each, and nothing that the tool could take for an option, a path or an address.
_NPM = re.compile(r"((?:@[a-z0-9][\w.-]*/)?[a-z0-9][\w.-]*)@(\d+\.\d+\.\d+[\w.+-]*)", re.ASCII)
_DEBIAN = re.compile(r"([a-z0-9][a-z0-9+.-]+)=([0-9][\w.+~:-]*)", re.ASCII)


class PackageOrigin(NamedTuple):
    """A file of a Python package registry; which one of the version's files, its hash says."""

    name: str
    version: str


class NpmOrigin(NamedTuple):
    """A package of an npm registry, fetched by `npm pack`."""

    name: str
    version: str


class DebianOrigin(NamedTuple):
    """A package of the Debian archives that this machine's apt is set to, fetched by `apt-get download`."""

    name: str
    version: str


class WebOrigin(NamedTuple):
    """One file behind a URL."""

    url: str


class FileOrigin(NamedTuple):
    """One file on this machine."""

    path: Path


class ConversationsOrigin(NamedTuple):
    """A snapshot of the product's own conversations on this machine: `pipelines/data/conversations.py`."""

    folder: Path


class HubOrigin(NamedTuple):
    """A Hugging Face data set at a commit."""

    repo: str
    revision: str


Origin = PackageOrigin | NpmOrigin | DebianOrigin | WebOrigin | FileOrigin | ConversationsOrigin | HubOrigin


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
        BadInput: none of the forms.
    """
    kind, _, rest = text.partition(":")
    if kind == "pypi":
        return parse_package(rest)
    if kind == "npm" and (found := _NPM.fullmatch(rest)):
        return NpmOrigin(found[1], found[2])
    if kind == "debian" and (found := _DEBIAN.fullmatch(rest)):
        return DebianOrigin(found[1], found[2])
    if kind in ("http", "https") and rest.startswith("//"):
        return WebOrigin(text)
    if kind == "file" and rest:
        return FileOrigin(Path(rest.removeprefix("//")))
    if kind == "conversations" and rest:
        return ConversationsOrigin(Path(rest))
    if kind == "hub" and "@" in rest:
        repo, _, revision = rest.rpartition("@")
        require_commit(repo, revision)
        return HubOrigin(repo, revision)
    raise BadInput(f"origin {text!r} is not one of: {FORMS}")
