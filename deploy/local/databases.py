"""Empty, migrated databases of Airflow and Label Studio, made once with their environments.

Migrating an empty database takes Label Studio half a minute; a new state folder gets a copy instead.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from deploy.local.settings import SettingError, Settings


class Recipe(NamedTuple):
    """How a server makes its database: a program of its environment, its words, its folder's variable, its file."""

    program: str
    words: tuple[str, ...]
    folder_variable: str
    file: str


RECIPES = {
    "airflow": Recipe("airflow", ("db", "migrate"), "AIRFLOW_HOME", "airflow.db"),
    # It has no command for this alone; every command migrates first.
    "label-studio": Recipe("label-studio", ("version",), "LABEL_STUDIO_BASE_DATA_DIR", "label_studio.sqlite3"),
}


def template(settings: Settings, environment: str) -> Path:
    """Where the empty database of `environment` lies."""
    return settings.envs / environment / "empty.sqlite3"


def make_template(settings: Settings, environment: str) -> None:
    """Let the server of `environment` migrate an empty database, and keep that.

    Raises:
        SettingError: it could not; the message has the end of what it said.
    """
    recipe = RECIPES[environment]
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "0", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
        variables = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        command = [settings.binary(environment, recipe.program), *recipe.words]
        done = subprocess.run(
            command,
            cwd=folder,
            env=variables | quiet | {recipe.folder_variable: folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            said = (done.stderr or done.stdout)[-1000:]
            raise SettingError(f"{' '.join(command)} ended with exit code {done.returncode}: {said}")
        partial = template(settings, environment).with_suffix(".partial")
        shutil.copyfile(Path(folder, recipe.file), partial)
        partial.replace(template(settings, environment))


def place(settings: Settings, environment: str, folder: Path) -> bool:
    """Give `folder` a copy of the empty database; False when it has one already or there is no template."""
    target = folder / RECIPES[environment].file
    source = template(settings, environment)
    if target.exists() or not source.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
    return True
