"""Where Python packages come from: what pip is configured to use, told to uv; CPU builds of torch; uv itself.

Standard library only, and no pip needed: a fresh Debian has neither pip nor ensurepip.
"""

import configparser
import hashlib
import io
import os
import platform
import re
import shutil
import ssl
import sys
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYPI = "https://pypi.org/simple"
PROBE_TIMEOUT_S = 3


def pip_config_files() -> list[Path]:
    """The files that pip reads, later ones win."""
    home = Path.home()
    user = Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"))
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        user / "pip" / "pip.conf",
    ]
    files.append(Path(sys.prefix) / "pip.conf")
    if given := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(given))
    return files


def pip_setting(name: str) -> str:
    """What pip is told of `name` (find-links, index-url …) by environment or configuration; empty when nothing."""
    variable = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if variable is not None:
        return variable
    parser = configparser.RawConfigParser()
    parser.read(pip_config_files())
    for section in ("install", "global"):
        if parser.has_option(section, name):
            return parser.get(section, name)
    return ""


class Sources(NamedTuple):
    """What pip would use, in order."""

    find_links: tuple[str, ...]
    main_index: str
    extra_indexes: tuple[str, ...]
    certificate: str


def _there(url: str) -> bool:
    """Whether an address can be asked at all: a folder that is not there can't."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme != "file" or Path(urllib.request.url2pathname(parts.path)).is_dir()


def sources() -> Sources:
    """The package sources of this user on this machine."""
    extra = tuple(url for url in pip_setting("extra-index-url").split() if _there(url))
    return Sources(tuple(pip_setting("find-links").split()), pip_setting("index-url"), extra, pip_setting("cert"))


def uv_environment(found: Sources, extra: bool) -> dict[str, str]:
    """`found` as uv's variables, with the extra indexes only on demand; what is set for uv already stays."""
    settings = {
        "UV_FIND_LINKS": ",".join(found.find_links),
        "UV_DEFAULT_INDEX": found.main_index,
        "SSL_CERT_FILE": found.certificate,
    }
    if extra:
        # pip takes the best version of all indexes; uv by default looks no further than the first that has the name.
        settings |= {"UV_INDEX": " ".join(found.extra_indexes), "UV_INDEX_STRATEGY": "unsafe-best-match"}
    return {name: value for name, value in settings.items() if value and name not in os.environ}


def _open(url: str, certificate: str, timeout: float) -> bytes:
    context = ssl.create_default_context(cafile=certificate or None) if url.startswith("https:") else None
    with urllib.request.urlopen(url, timeout=timeout, context=context) as response:
        body: bytes = response.read()
    return body


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def cpu_torch_linked(found: Sources, version: str) -> bool:
    """Whether find-links has a CPU build of torch `version`, which installers then prefer by themselves."""
    for place in found.find_links:
        if Path(place).is_dir():
            if list(Path(place).glob(f"torch-{version}+cpu-*.whl")):
                return True
        elif "://" in place:
            try:
                page = urllib.parse.unquote(_open(place, found.certificate, PROBE_TIMEOUT_S).decode(errors="replace"))
            except OSError:
                continue
            if f"torch-{version}+cpu-" in page:
                return True
    return False


def torch_index_answers(found: Sources) -> bool:
    """Whether PyTorch's own index of CPU builds can be reached, quickly."""
    try:
        return bool(_open(f"{TORCH_CPU_INDEX}/torch/", found.certificate, PROBE_TIMEOUT_S))
    except OSError:
        return False


def needs_torch_index(found: Sources, version: str) -> bool:
    """Whether CUDA builds are kept off this machine by asking PyTorch's index of CPU builds for torch."""
    return not has_gpu() and not cpu_torch_linked(found, version) and torch_index_answers(found)


def fetch_uv(folder: Path, found: Sources, version: str) -> Path:
    """Take the program out of uv's wheel from the package index; returns its path.

    Raises:
        OSError: the index can't be reached, or has no wheel for this machine.
    """
    page_url = f"{(found.main_index or PYPI).rstrip('/')}/uv/"
    page = _open(page_url, found.certificate, 60).decode()
    name = rf"uv-{re.escape(version)}-py3-none-manylinux[^\"#/]*_{platform.machine()}[^\"#/]*\.whl"
    link = re.search(rf'href="([^"#]*{name})(?:#sha256=([0-9a-f]+))?[^"]*"', page)
    if link is None:
        raise FileNotFoundError(f"{page_url} has no wheel of uv {version} for {platform.machine()}")
    wheel = _open(urllib.parse.urljoin(page_url, link[1].replace("&amp;", "&")), found.certificate, 300)
    if link[2] and hashlib.sha256(wheel).hexdigest() != link[2]:
        raise OSError(f"the wheel of uv {version} from {page_url} has another sha256 than the index says")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        program = archive.read(f"uv-{version}.data/scripts/uv")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".uv"
    partial.write_bytes(program)
    partial.chmod(0o755)
    return partial.rename(folder / "uv")
