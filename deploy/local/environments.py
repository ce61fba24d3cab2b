"""Creates the three Python environments from pinned constraints, once. Standard library only; any Python 3.11 runs it.

    python3 -m deploy.local.environments

With uv when it is there, else with uv from the package index, else with pip. On a machine without a GPU the CPU build
of torch is taken where one can be had. The servers' empty databases are migrated here too.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from deploy.local import databases, package_sources
from deploy.local import settings as local
from deploy.local.package_sources import TORCH_CPU_INDEX, Sources
from deploy.local.settings import ROOT, SettingError, Settings

ENVIRONMENTS = ("label-studio", "airflow", "project")  # slowest database first: it is migrated beside the rest
OLDEST_UV = (0, 8)  # knows --torch-backend


def constraint_files(environment: str) -> tuple[Path, Path]:
    """What `environment` asks for, and the pins."""
    folder = ROOT / "constraints"
    return folder / f"{environment}.in", folder / f"{environment}.txt"


def pinned(package: str) -> str:
    """The version of `package` in the project's constraints."""
    found = re.search(rf"^{package}==([^\s;]+)", constraint_files("project")[1].read_text(), re.MULTILINE)
    assert found, f"{package} is not in constraints/project.txt"
    return found[1]


def stamp_of(environment: str) -> str:
    """What an environment is made from; another stamp makes it anew."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in constraint_files(environment)))
    return f"python {sys.version_info[0]}.{sys.version_info[1]} {digest.hexdigest()}"


def uv_works(uv: str) -> bool:
    """Whether `uv` runs here and is new enough."""
    done = subprocess.run([uv, "--version"], capture_output=True, text=True)
    version = re.match(r"uv (\d+)\.(\d+)", done.stdout)
    return done.returncode == 0 and version is not None and (int(version[1]), int(version[2])) >= OLDEST_UV


def find_uv(settings: Settings, found: Sources) -> str | None:
    """uv from PATH or of this project alone, fetched when need be; None when it can't be had."""
    own = settings.envs / "bootstrap" / "uv"
    for candidate in (shutil.which("uv"), str(own) if own.exists() else None):
        if candidate and uv_works(candidate):
            return candidate
    print("uv is not on PATH; fetching it for this project alone", flush=True)
    try:
        uv = str(package_sources.fetch_uv(own.parent, found, pinned("uv")))
    except OSError as error:
        print(f"uv can't be had ({error}); pip does it, which takes longer", flush=True)
        return None
    return uv if uv_works(uv) else None


def uv_commands(uv: str, environment: str, folder: Path, torch_index: bool) -> list[list[str]]:
    """The commands that make `environment` in `folder` with uv."""
    requirements, constraints = map(str, constraint_files(environment))
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder / "bin" / "python")]
    install += ["-r", requirements, "-c", constraints]
    if torch_index:
        install += ["--torch-backend", "cpu"]
    return [[uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], install]


def pip_commands(environment: str, folder: Path, torch_index: bool) -> list[list[str]]:
    """The same with pip, which reads its own configuration."""
    requirements, constraints = map(str, constraint_files(environment))
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", requirements, "-c", constraints]
    if torch_index:
        install += ["--extra-index-url", TORCH_CPU_INDEX]
    return [[sys.executable, "-m", "venv", "--clear", str(folder)], install]


def _run_all(commands: list[list[str]], variables: dict[str, str]) -> None:
    for command in commands:
        subprocess.run(command, env=os.environ | variables, check=True)


def create(environment: str, uv: str | None, found: Sources, settings: Settings) -> None:
    """Make `environment` from its requirements under its constraints.

    Raises:
        SettingError: uv or pip failed; what they said is above.
    """
    folder = settings.envs / environment
    torch_index = environment == "project" and package_sources.needs_torch_index(found, pinned("torch"))
    try:
        if uv is None:
            _run_all(pip_commands(environment, folder, torch_index), {})
            return
        commands = uv_commands(uv, environment, folder, torch_index)
        try:
            _run_all(commands, package_sources.uv_environment(found, extra=False))
        except subprocess.CalledProcessError:
            if not found.extra_indexes:
                raise
            print(f"once more, with the extra indexes {' '.join(found.extra_indexes)}", flush=True)
            _run_all(commands, package_sources.uv_environment(found, extra=True))
    except subprocess.CalledProcessError as error:
        raise SettingError(
            f"environment {environment} could not be made: {error.cmd[0]} ended with {error.returncode}, see above; "
            "it needs a Python package index (PIP_INDEX_URL, PIP_FIND_LINKS), and without uv python3-venv"
        ) from error


def outdated(settings: Settings) -> list[str]:
    """The environments that are missing or were made from something else."""
    stamps = {name: settings.envs / name / "stamp" for name in ENVIRONMENTS}
    return [name for name, path in stamps.items() if not path.exists() or path.read_text() != stamp_of(name)]


def ensure(settings: Settings) -> None:
    """Create what is missing or out of date; each stamp is written last."""
    if not outdated(settings):
        return
    settings.envs.mkdir(parents=True, exist_ok=True)
    with (settings.envs / ".lock").open("w") as lock, ThreadPoolExecutor() as background:
        fcntl.flock(lock, fcntl.LOCK_EX)  # clones may share the folder
        began = time.monotonic()
        names = outdated(settings)
        found = package_sources.sources()
        uv = find_uv(settings, found) if names else None
        migrations: dict[str, Future[None]] = {}
        for name in names:
            started = time.monotonic()
            create(name, uv, found, settings)
            print(f"environment {name} installed in {time.monotonic() - started:.0f} s", flush=True)
            if name in databases.RECIPES:
                migrations[name] = background.submit(databases.make_template, settings, name)
        for name in names:
            if name in migrations:
                migrations[name].result()
            (settings.envs / name / "stamp").write_text(stamp_of(name))
        if names:
            print(f"set up in {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"error: Python 3.11 is needed, this is {sys.version.split()[0]}; set PYTHON=python3.11")
    try:
        ensure(local.load())
    except SettingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
