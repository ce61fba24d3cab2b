"""Templates of empty databases."""

import sqlite3
from pathlib import Path

import pytest

from deploy.local import databases
from deploy.local.settings import DEFAULT_PORTS, SettingError, Settings

SERVER = """#!/bin/sh
[ "$1 $2" = "db migrate" ] || { echo "no such command" >&2; exit 2; }
echo migrated > "$AIRFLOW_HOME/airflow.db"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))
    program = settings.envs / "airflow" / "bin" / "airflow"
    program.parent.mkdir(parents=True)
    program.write_text(SERVER)
    program.chmod(0o755)
    return settings


def test_a_new_home_gets_a_copy_of_the_migrated_database(settings: Settings):
    databases.make_template(settings, "airflow")
    assert databases.place(settings, "airflow", settings.home / "airflow")
    assert (settings.home / "airflow" / "airflow.db").read_text() == "migrated\n"


def test_a_database_in_use_is_never_replaced(settings: Settings):
    databases.make_template(settings, "airflow")
    database = settings.home / "airflow" / "airflow.db"
    database.parent.mkdir(parents=True)
    sqlite3.connect(database).execute("create table runs (id)").connection.close()
    before = database.read_bytes()
    assert not databases.place(settings, "airflow", database.parent)
    assert database.read_bytes() == before


def test_without_a_template_the_server_migrates_by_itself(settings: Settings):
    assert not databases.place(settings, "airflow", settings.home / "airflow")


def test_a_migration_that_fails_says_what_the_server_said(settings: Settings):
    (settings.envs / "airflow" / "bin" / "airflow").write_text("#!/bin/sh\necho disk full >&2; exit 3\n")
    with pytest.raises(SettingError, match=r"exit code 3: disk full"):
        databases.make_template(settings, "airflow")
    assert not databases.template(settings, "airflow").exists()
