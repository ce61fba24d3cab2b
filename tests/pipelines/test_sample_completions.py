"""Sampling: the batch depends on its requests alone, repeated answers are drawn again, the batch id on all of it."""

from pathlib import Path

import pytest

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, read_rows, write_rows
from pipelines.core.records import Conversation, LabelTask, Message
from pipelines.model.engine import TransformersEngine
from pipelines.sample_completions import sample, seed_of
from tests.models import make_policy
from tests.workspaces import make_workspace, run_stage

PROMPTS = [Conversation(str(n), (Message("user", f"one two {n}"),), "facts", "us", "CC-BY-4.0") for n in range(3)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("sample"))
    make_policy(workspace / artifacts.SFT)
    write_rows(workspace / artifacts.PROMPTS_LABELING, (prompt.to_row() for prompt in PROMPTS))
    done = run_stage(workspace, "pipelines.sample_completions")
    assert done.returncode == 0, done.stderr
    return workspace


def test_every_prompt_has_its_different_responses(workspace: Path) -> None:
    tasks = [LabelTask.from_row(row) for row in read_rows(workspace / artifacts.LABEL_BATCH)]
    assert {task.prompt.id for task in tasks} == {"0", "1", "2"}
    for task in tasks:
        assert [completion.id for completion in task.completions] == ["m0", "m1", "m2", "m3"]
        assert len({completion.text for completion in task.completions}) == 4


def test_the_batch_id_changes_with_the_label_config(workspace: Path) -> None:
    before = read_json(workspace / artifacts.LABEL_BATCH_MANIFEST)
    batch = (workspace / artifacts.LABEL_BATCH).read_bytes()
    config = workspace / "labeling" / "label_config.xml"
    config.write_text(config.read_text() + "\n<!-- changed -->\n")
    assert run_stage(workspace, "pipelines.sample_completions").returncode == 0
    after = read_json(workspace / artifacts.LABEL_BATCH_MANIFEST)
    assert (workspace / artifacts.LABEL_BATCH).read_bytes() == batch
    assert after["batch_id"] != before["batch_id"]


def test_a_repeated_answer_is_drawn_again(workspace: Path) -> None:
    params = make_params(temperature=1e-3)
    engine = TransformersEngine(workspace / artifacts.SFT, "float32", 8)
    sampled = sample(engine, PROMPTS[:1], params, seed=1)
    assert len({generation.text for generation in sampled[0]}) > 1


def make_params(temperature: float):
    from pipelines.core import config
    from tests.workspaces import ROOT

    values = config.resolve(ROOT, "tiny", [f"sample_completions.temperatures=[{temperature}]"])
    return config.parse(values, "test").sample_completions


def test_a_seed_belongs_to_a_request() -> None:
    seeds = {seed_of(1, prompt, place, attempt) for prompt in "ab" for place in range(3) for attempt in range(2)}
    assert len(seeds) == 12
    assert seed_of(1, "a", 0, 0) == seed_of(1, "a", 0, 0)
