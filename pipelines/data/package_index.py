"""Finds a file of a Python package in the registries that the user's pip or uv is set to; runs none of its code.

Speaks the simple repository API as HTML (PEP 503) and JSON (PEP 691), over HTTP and over file://. `pip download`
would execute the build backend of an sdist for its metadata; a corpus needs the file alone.
"""

import configparser
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from pipelines.core.errors import BadInput

PUBLIC_INDEX = "https://pypi.org/simple"
ARCHIVES = (".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".whl")


class IndexSettings(NamedTuple):
    """Which registries to ask, in this order, and the certificate that they need."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    certificate: str | None


class Link(NamedTuple):
    """One file on offer; `sha256` is None where the registry does not say it."""

    url: str
    filename: str
    sha256: str | None


class Page(NamedTuple):
    """What a registry answered for one project: `url` after redirects, media type, body."""

    url: str
    media_type: str
    body: bytes


# Reads one page of a registry; None when it has none at that address. Raises BadInput when it can't be reached.
ReadPage = Callable[[str], Page | None]


def pip_config_files(environ: Mapping[str, str]) -> list[Path]:
    """The files that pip reads its settings from, weakest first."""
    home = Path(environ.get("HOME", "/nonexistent"))
    user = Path(environ.get("XDG_CONFIG_HOME", home / ".config"))
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), home / ".pip/pip.conf", user / "pip/pip.conf"]
    files.append(Path(sys.prefix) / "pip.conf")
    return files + [Path(environ["PIP_CONFIG_FILE"])] if "PIP_CONFIG_FILE" in environ else files


def read_settings(environ: Mapping[str, str], config_files: list[Path]) -> IndexSettings:
    """The registries of pip's files, then of PIP_ variables, with those of UV_ variables added."""
    parser = configparser.RawConfigParser()
    parser.read(config_files, encoding="utf-8")

    def of_pip(option: str) -> str:
        sections = [name for name in ("download", "install", "global") if parser.has_option(name, option)]
        written = parser.get(sections[0], option) if sections else ""
        return environ.get("PIP_" + option.upper().replace("-", "_"), written)

    def of_uv(*variables: str) -> list[str]:  # an entry may be name=url
        entries = [entry for variable in variables for entry in environ.get(variable, "").split()]
        return [re.sub(r"^[\w-]+=", "", entry) for entry in entries]

    first = of_pip("index-url") or " ".join(of_uv("UV_DEFAULT_INDEX", "UV_INDEX_URL")[:1]) or PUBLIC_INDEX
    indexes = [first, *of_pip("extra-index-url").split(), *of_uv("UV_INDEX", "UV_EXTRA_INDEX_URL")]
    if (of_pip("no-index") or environ.get("UV_NO_INDEX", "")).lower() in ("1", "true", "yes", "on"):
        indexes = []
    links = [*of_pip("find-links").split(), *environ.get("UV_FIND_LINKS", "").replace(",", " ").split()]
    certificate = of_pip("cert") or environ.get("SSL_CERT_FILE")
    return IndexSettings(tuple(dict.fromkeys(indexes)), tuple(dict.fromkeys(links)), certificate or None)


def canonical_name(name: str) -> str:
    """The form in which registries file a project (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def version_of(filename: str, name: str) -> str | None:
    """The version in the file name of an sdist or wheel of `name`; None when it is another project's."""
    for suffix in ARCHIVES:
        if filename.endswith(suffix):
            stem = filename.removesuffix(suffix)
            break
    else:
        return None
    if suffix == ".whl":
        project, _, rest = stem.partition("-")
        return rest.split("-")[0] if canonical_name(project) == canonical_name(name) else None
    project, _, version = stem.rpartition("-")
    return version if canonical_name(project) == canonical_name(name) else None


def _link(href: str, base: str, sha256: str | None = None) -> Link:
    url, _, fragment = urljoin(base, href).partition("#")
    if fragment.startswith("sha256="):
        sha256 = fragment.removeprefix("sha256=")
    return Link(url, unquote(urlsplit(url).path.rpartition("/")[2]), sha256)


class _Anchors(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.links: list[Link] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "base" and href:
            self.base = urljoin(self.base, href)
        elif tag == "a" and href:
            self.links.append(_link(href, self.base))


def links_of(page: Page) -> list[Link]:
    """The files that a project's page lists."""
    if "json" in page.media_type:
        files = json.loads(page.body)["files"]
        return [_link(file["url"], page.url, file.get("hashes", {}).get("sha256")) for file in files]
    anchors = _Anchors(page.url)
    anchors.feed(page.body.decode("utf-8", "replace"))
    return anchors.links


def _links_of_folder(folder: Path) -> list[Link]:
    return [_link(path.resolve().as_uri(), "") for path in sorted(folder.iterdir()) if path.name.endswith(ARCHIVES)]


def offered(name: str, settings: IndexSettings, read_page: ReadPage) -> Iterator[Link]:
    """Every file of project `name` in the registries and link folders of `settings`."""
    for place in settings.find_links:
        folder = Path(urlsplit(place).path if place.startswith("file:") else place)
        if folder.is_dir():
            yield from _links_of_folder(folder)
        elif "://" in place and (page := read_page(place)):
            yield from links_of(page)
    for index in settings.indexes:
        if page := read_page(f"{index.rstrip('/')}/{canonical_name(name)}/"):
            yield from links_of(page)


def find_files(name: str, version: str, sha256: str, settings: IndexSettings, read_page: ReadPage) -> list[Link]:
    """The file of `name==version` with hash `sha256`, or, where no registry says hashes, each that could be it.

    Raises:
        BadInput: nobody offers it; the message lists what is offered for that version, or who can't be reached.
    """
    unnamed: list[Link] = []
    others: list[str] = []
    unreachable: list[str] = []

    def read_if_reachable(url: str) -> Page | None:
        try:
            return read_page(url)
        except BadInput as error:  # as pip does: another registry may have the file
            unreachable.append(str(error))
            return None

    for link in offered(name, settings, read_if_reachable):
        if version_of(link.filename, name) != version:
            continue
        if link.sha256 == sha256:
            return [link]
        if link.sha256 is None:
            unnamed.append(link)
        else:
            others.append(f"{link.filename} (sha256 {link.sha256})")
    if unnamed:
        return unnamed
    if unreachable:
        raise BadInput(f"pypi:{name}=={version}: {'; '.join(unreachable)}")
    places = ", ".join(without_password(place) for place in (*settings.indexes, *settings.find_links)) or "no registry"
    found = "; ".join(dict.fromkeys(others)) or "no file of that version"
    raise BadInput(
        f"pypi:{name}=={version} with sha256 {sha256} is not in {places}; found: {found}. "
        "Correct the version or the hash, or set PIP_INDEX_URL to a registry that has it"
    )


def without_password(url: str) -> str:
    """`url` as it may be printed."""
    return re.sub(r"//[^/@]+@", "//***@", url)
