"""Makes the Python environment of a peer, once, beside the project's own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from deploy.local import package_sources
from deploy.local import settings as local
from deploy.local.environments import constraint_files, find_uv, pinned

PEERS = Path(__file__).parent


def python_of(peer: str) -> Path:
    """The interpreter of `peer`'s environment, made from `<peer>.in` under the project's pins when it is not there."""
    settings = local.load()
    folder = settings.envs / peer
    requirements = PEERS / f"{peer}.in"
    wanted = {line.split("==")[0] for line in requirements.read_text().splitlines() if line and line[0] != "#"}
    pins = [
        line for line in constraint_files("project")[1].read_text().splitlines() if line.split("==")[0] not in wanted
    ]
    stamp = hashlib.sha256("\n".join([requirements.read_text(), *pins]).encode()).hexdigest()
    if (folder / "stamp").is_file() and (folder / "stamp").read_text() == stamp:
        return folder / "bin" / "python"
    print(f"the environment of {peer} is made in {folder}", file=sys.stderr, flush=True)
    sources = package_sources.sources()
    uv = find_uv(settings, sources)
    assert uv, "a peer's environment needs uv"
    constraints = settings.envs / f"{peer}-constraints.txt"
    constraints.write_text("\n".join(pins))
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    install += ["-r", str(requirements), "-c", str(constraints)]
    if package_sources.needs_torch_index(sources, pinned("torch")):
        install += ["--torch-backend", "cpu"]
    variables = os.environ | package_sources.uv_environment(sources, extra=True)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
    subprocess.run(install, env=variables, check=True)
    (folder / "stamp").write_text(stamp)
    return folder / "bin" / "python"
