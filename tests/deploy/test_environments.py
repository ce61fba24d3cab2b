"""How the environments are made, with a fake uv."""

import json
import sys
from pathlib import Path

import pytest

from deploy.local import databases, environments, package_sources
from deploy.local.package_sources import Sources
from deploy.local.settings import DEFAULT_PORTS, SettingError, Settings

# Notes how it was called; makes the folder of `uv venv`; fails to install while UV_INDEX lacks what FAIL_WITHOUT names.
FAKE_UV = """#!{python}
import json, os, sys
from pathlib import Path
if sys.argv[1:] == ["--version"]:
    print(os.environ.get("FAKE_VERSION", "uv 0.13.8 (x)"))
    sys.exit()
names = ("UV_FIND_LINKS", "UV_INDEX")
entry = {{"words": sys.argv[1:], "variables": {{name: os.environ.get(name) for name in names}}}}
with open({calls!r}, "a") as log:
    log.write(json.dumps(entry) + chr(10))
if sys.argv[1] == "venv":
    Path(sys.argv[-1]).mkdir(parents=True, exist_ok=True)
elif os.environ.get("FAIL_WITHOUT", "") not in os.environ.get("UV_INDEX", ""):
    sys.exit(2)
"""


class FakeUv:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._calls = folder / "calls.jsonl"
        self.path = folder / "uv"
        self.path.write_text(FAKE_UV.format(python=sys.executable, calls=str(self._calls)))
        self.path.chmod(0o755)

    @property
    def calls(self) -> list[dict]:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    """A fake uv on PATH; no package source, no GPU, no way to PyTorch's index, no server to migrate a database."""
    fake = FakeUv(tmp_path / "bin")
    for name in ("UV_FIND_LINKS", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{fake.path.parent}:/usr/bin:/bin")
    monkeypatch.setattr(package_sources, "sources", lambda: Sources(("/links",), "", (), ""))
    monkeypatch.setattr(package_sources, "has_gpu", lambda: False)
    monkeypatch.setattr(package_sources, "torch_index_answers", lambda found: False)
    monkeypatch.setattr(databases, "make_template", lambda settings, environment: None)
    return fake


def installs(uv: FakeUv) -> list[dict]:
    return [call for call in uv.calls if call["words"][:2] == ["pip", "install"]]


def test_each_environment_is_installed_under_its_constraints_with_pips_links(uv: FakeUv, settings: Settings):
    environments.ensure(settings)
    assert len(installs(uv)) == len(environments.ENVIRONMENTS)
    for name, call in zip(environments.ENVIRONMENTS, installs(uv), strict=True):
        words = call["words"]
        assert words[words.index("-r") + 1].endswith(f"constraints/{name}.in")
        assert words[words.index("-c") + 1].endswith(f"constraints/{name}.txt")
        assert call["variables"]["UV_FIND_LINKS"] == "/links"


def test_a_second_call_does_nothing_and_a_changed_pin_makes_one_environment_anew(
    uv: FakeUv, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    environments.ensure(settings)
    before = len(uv.calls)
    environments.ensure(settings)
    assert len(uv.calls) == before
    made_from = environments.stamp_of
    monkeypatch.setattr(environments, "stamp_of", lambda name: made_from(name) + ("x" if name == "airflow" else ""))
    environments.ensure(settings)
    assert [call["words"][-1] for call in uv.calls[before:] if call["words"][0] == "venv"] == [
        str(settings.envs / "airflow")
    ]


def test_an_environment_whose_installation_failed_is_not_taken_for_made(
    uv: FakeUv, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAIL_WITHOUT", "https://more.example")
    with pytest.raises(SettingError, match="label-studio could not be made"):
        environments.ensure(settings)
    assert environments.outdated(settings) == list(environments.ENVIRONMENTS)


def test_extra_indexes_are_asked_only_when_the_main_one_lacks_something(
    uv: FakeUv, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    found = Sources((), "", ("https://more.example",), "")
    environments.create("airflow", str(uv.path), found, settings)
    assert [call["variables"]["UV_INDEX"] for call in installs(uv)] == [None]
    monkeypatch.setenv("FAIL_WITHOUT", "https://more.example")
    environments.create("airflow", str(uv.path), found, settings)
    assert [call["variables"]["UV_INDEX"] for call in installs(uv)[1:]] == [None, "https://more.example"]


def test_torchs_index_is_asked_for_the_project_alone(uv: FakeUv, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(package_sources, "torch_index_answers", lambda found: True)
    environments.ensure(settings)
    asked = [
        call["words"][call["words"].index("-r") + 1] for call in installs(uv) if "--torch-backend" in call["words"]
    ]
    assert [Path(path).stem for path in asked] == ["project"]


@pytest.mark.parametrize("version", ["uv 0.5.1", "pyenv: uv: command not found"])
def test_an_old_or_broken_uv_on_path_is_passed_over(
    uv: FakeUv, settings: Settings, monkeypatch: pytest.MonkeyPatch, version: str
):
    own = settings.envs / "bootstrap" / "uv"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho uv 0.13.8\n")
    own.chmod(0o755)
    monkeypatch.setenv("FAKE_VERSION", version)
    assert environments.find_uv(settings, package_sources.sources()) == str(own)


def test_without_uv_pip_makes_the_environment(monkeypatch: pytest.MonkeyPatch, settings: Settings):
    def no_uv(*arguments: object) -> Path:
        raise OSError("no route to the index")

    monkeypatch.setattr(package_sources, "fetch_uv", no_uv)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert environments.find_uv(settings, Sources((), "", (), "")) is None
    venv, install = environments.pip_commands("project", settings.envs / "project", torch_index=True)
    assert venv[1:3] == ["-m", "venv"]
    assert install[1:4] == ["-m", "pip", "install"]
    assert package_sources.TORCH_CPU_INDEX in install
