"""Workspaces over a real git repository: each run has its own, bad requests make none, cleaning spares live runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core import artifacts, config, workspace
from pipelines.core.digests import folder_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.workspace import RunRequest

ROOT = Path(__file__).parents[3]


def git(repo: Path, *words: str) -> str:
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", repo, *author, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    repo = tmp_path / "repo"
    (repo / "profiles").mkdir(parents=True)
    (repo / ".dvc").mkdir()
    (repo / ".gitignore").write_text(".run/\n.dvc/config.local\n")
    (repo / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (repo / "profiles" / "tiny.yaml").write_text((ROOT / "profiles" / "tiny.yaml").read_text())
    (repo / ".dvc" / "config").write_text("")
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "first")
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(workspace.tracking, "open_parent", lambda name, tags, params: f"mlflow-{name}")
    return repo


def test_two_runs_have_workspaces_and_parameters_of_their_own(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    one = workspace.open_workspace(repo, home, RunRequest("run one", "tiny", overrides=("ppo.steps=3",)))
    two = workspace.open_workspace(repo, home, RunRequest("run two", "tiny", overrides=("ppo.steps=4",)))
    assert one != two
    assert config.load_params(one / "params.yaml").ppo.steps == 3
    assert config.load_params(two / "params.yaml").ppo.steps == 4
    assert (one / ".dvc/config.local").read_text() == (two / ".dvc/config.local").read_text()
    assert read_json(one / artifacts.RUN_INFO)["mlflow_run_id"] == "mlflow-run one"
    assert git(repo, "status", "--porcelain") == ""


def test_a_second_opening_finds_the_first(repo: Path, tmp_path: Path) -> None:
    request = RunRequest("r", "tiny")
    first = workspace.open_workspace(repo, tmp_path / "home", request)
    (first / "kept").write_text("")
    assert workspace.open_workspace(repo, tmp_path / "home", request) == first
    assert (first / "kept").exists()


def test_choices_of_the_form_become_parameters(repo: Path, tmp_path: Path) -> None:
    request = RunRequest("r", "tiny", base_model=f"folder:{tmp_path}", labelers="human", align_method="dpo")
    params = config.load_params(workspace.open_workspace(repo, tmp_path / "home", request) / "params.yaml")
    assert (params.labeling.labelers, params.align.method) == ("human", "dpo")
    assert params.base_model.model_dump() == {
        "kind": "folder",
        "path": str(tmp_path),
        "sha256": folder_sha256(tmp_path),
    }


def test_a_base_model_folder_is_pinned_by_its_files(repo: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    pins = []
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (model / "model.safetensors").write_bytes(weights)
        opened = workspace.open_workspace(repo, tmp_path / "home", RunRequest(name, "tiny", f"folder:{model}"))
        pins.append(config.load_params(opened / "params.yaml").base_model.sha256)
    assert pins[0] == pins[1] != pins[2]


def test_a_commit_is_opened_by_its_own_code(tmp_path: Path) -> None:
    """A parameter that this code does not know is none of its business when the commit's own code does."""
    repo = tmp_path / "repo"
    for name in ("pipelines", "profiles"):
        shutil.copytree(ROOT / name, repo / name, ignore=shutil.ignore_patterns("__pycache__"))
    (repo / ".dvc").mkdir()
    (repo / ".dvc" / "config").write_text("")
    (repo / "params.yaml").write_text((ROOT / "params.yaml").read_text() + "novelty: 1\n")
    schema = repo / "pipelines" / "core" / "config.py"
    schema.write_text(schema.read_text().replace("    seed: ", "    novelty: int\n    seed: ", 1))
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "a schema of its own")
    home = tmp_path / "home"
    home.mkdir()
    places = {"COLLOQUY_REPO": str(repo), "COLLOQUY_HOME": str(home), "PYTHONPATH": str(ROOT)}
    places["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    words = ["open", "--run-id", "r", "--profile", "tiny", "--override", "novelty=2"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.core.workspace", *words],
        env=os.environ | places,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "novelty: 2" in (workspace.folder(home, "r") / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (RunRequest("r", "nope"), "nope"),
        (RunRequest("r", "tiny", base_model="folder:/not/there"), "/not/there"),
        (RunRequest("r", "tiny", base_model="SmolLM"), "SmolLM"),
        (RunRequest("r", "tiny", commit="0123abc"), "0123abc"),
        (RunRequest("r", "tiny", overrides=("resources.min_memory_gib=1e6",)), "GiB of memory"),
        (RunRequest("r", "tiny", overrides=("resources.min_free_disk_gib=1e9",)), "GiB free"),
    ],
)
def test_a_bad_request_is_refused_by_name(repo: Path, tmp_path: Path, request_: RunRequest, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        workspace.open_workspace(repo, tmp_path / "home", request_)
    assert not (workspace.folder(tmp_path / "home", "r") / artifacts.RUN_INFO).exists()


def test_cleaning_spares_running_released_and_the_newest(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = {name: workspace.open_workspace(repo, home, RunRequest(name, "tiny")) for name in ("a", "b", "live", "out")}
    for name in ("a", "b", "out"):
        write_json(made[name] / artifacts.RUN / "summary.json", {})
    write_json(made["out"] / artifacts.DEPLOYED, {})
    assert len(workspace.clean(repo, home, keep=1)) == 1
    assert made["live"].exists() and made["out"].exists()
    assert workspace.clean(repo, home, keep=0)
    assert not made["a"].exists() and not made["b"].exists()
    assert made["live"].exists() and made["out"].exists()


def test_promoting_asks_for_a_verdict_and_runs_the_code_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="RUN_ID"):
        workspace.promote(tmp_path, "Ada", "because")
    write_json(tmp_path / artifacts.VERDICT, {})
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals/promote.py").write_text(
        "import sys\nopen('said', 'w').write(repr(sys.argv[1:]))\nsys.exit(65)\n"
    )
    assert workspace.promote(tmp_path, "Ada", 'it\'s a "test"') == 65
    assert (tmp_path / "said").read_text() == repr(["--by", "Ada", "--reason", 'it\'s a "test"'])
