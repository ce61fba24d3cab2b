"""Creates the three Python environments from pinned constraints, once. Standard library only; any Python 3.11 runs it.

    python3 -m deploy.local.environments

uv when it is there, else bootstrapped by pip. PIP_FIND_LINKS and index settings of pip are passed on to uv, which does
not read them itself. On a machine without a GPU the CPU build of torch is taken where one can be had.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from deploy.local import settings as local
from deploy.local.settings import ROOT, SettingError, Settings

ENVIRONMENTS = ("project", "airflow", "label-studio")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def pip_setting(name: str) -> str:
    """What pip is told of `name` (find-links, index-url …) by environment or configuration; empty when nothing."""
    variable = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if variable is not None:
        return variable
    for scope in ("global", "install"):
        words = [sys.executable, "-m", "pip", "config", "get", f"{scope}.{name}"]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def cpu_torch_linked(find_links: str) -> bool:
    """Whether a local folder among `find_links` holds a CPU build of torch."""
    return any(list(Path(folder).glob("torch-*+cpu-*.whl")) for folder in find_links.split() if Path(folder).is_dir())


def torch_index_answers() -> bool:
    """Whether PyTorch's own index of CPU builds can be reached, quickly."""
    try:
        with urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=3) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def uv_environment() -> dict[str, str]:
    """pip's links and main index in uv's words; an extra index may hold but some of a project's files."""
    settings = {
        "UV_FIND_LINKS": ",".join(pip_setting("find-links").split()),
        "UV_DEFAULT_INDEX": pip_setting("index-url"),
    }
    return {"UV_LINK_MODE": "hardlink"} | {
        key: value for key, value in settings.items() if value and key not in os.environ
    }


def torch_options(find_links: str, gpu: bool) -> list[str]:
    """uv's options that keep CUDA builds off a machine without a GPU."""
    if gpu or cpu_torch_linked(find_links) or not torch_index_answers():
        return []
    return ["--torch-backend", "cpu"]


def stamp_of(environment: str) -> str:
    """What an environment is made from; another stamp makes it anew."""
    files = [ROOT / "constraints" / f"{environment}.{suffix}" for suffix in ("in", "txt")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return f"{sys.version_info[:2]} {digest.hexdigest()}"


def find_uv(settings: Settings) -> str:
    """uv from PATH, or one that pip puts into an environment of its own.

    Raises:
        SettingError: neither works.
    """
    if found := shutil.which("uv"):
        return found
    bootstrap = settings.envs / "bootstrap"
    uv = bootstrap / "bin" / "uv"
    if not uv.exists():
        print("uv is not on PATH; pip installs it for this project alone", flush=True)
        python = str(bootstrap / "bin" / "python")
        try:
            subprocess.run([sys.executable, "-m", "venv", str(bootstrap)], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
        except subprocess.CalledProcessError as error:
            raise SettingError(
                f"uv could not be installed ({error}); install uv or python3-venv and try again"
            ) from error
    return str(uv)


def create(environment: str, uv: str, settings: Settings) -> None:
    """Make `environment` from its requirements under its constraints; the stamp is written last."""
    folder = settings.envs / environment
    (folder / "stamp").unlink(missing_ok=True)
    variables = os.environ | uv_environment()
    subprocess.run(
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], env=variables, check=True
    )
    command = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    command += ["-r", str(ROOT / "constraints" / f"{environment}.in")]
    command += ["-c", str(ROOT / "constraints" / f"{environment}.txt")]
    if environment == "project":
        command += torch_options(pip_setting("find-links"), has_gpu())
    subprocess.run(command, env=variables, check=True)
    (folder / "stamp").write_text(stamp_of(environment))


def ensure(settings: Settings) -> None:
    """Create what is missing or out of date."""
    for environment in ENVIRONMENTS:
        stamp = settings.envs / environment / "stamp"
        if stamp.exists() and stamp.read_text() == stamp_of(environment):
            continue
        started = time.monotonic()
        try:
            create(environment, find_uv(settings), settings)
        except subprocess.CalledProcessError as error:
            raise SettingError(f"the environment {environment} could not be made: {error}") from error
        print(f"environment {environment} made in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"error: Python 3.11 is needed, this is {sys.version.split()[0]}; set PYTHON=python3.11")
    try:
        ensure(local.load())
    except SettingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
