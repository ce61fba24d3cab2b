"""Sampling: the batch depends on its requests alone, repeated answers are drawn again, the batch id on all of it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import sample_completions
from pipelines.core import artifacts, config
from pipelines.core.errors import ExitCode
from pipelines.core.feedback import RatedAnswer
from pipelines.core.jsonl import read_json, read_rows, write_json, write_rows
from pipelines.core.records import Conversation, LabelTask, Message
from pipelines.model.asking import unsureness
from pipelines.model.engine import TransformersEngine
from pipelines.sample_completions import GUIDELINES, LABEL_CONFIG, sample, seed_of
from tests.models import make_policy, make_reward_model
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.workspaces import ROOT

FIRST = {"number": 1, "run": None, "simulated": False, "reward_model": {}, "preferences": {}}
SECOND = FIRST | {"number": 2, "run": "one", "reward_model": {"held_out_accuracy_low": 0.7}}
PROMPTS = [Conversation(str(n), (Message("user", f"one two {n}"),), "facts", "us", "CC-BY-4.0") for n in range(3)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        enter_workspace(folder, patch)
        make_policy(artifacts.SFT)
        write_rows(artifacts.PROMPTS_LABELING, (prompt.to_row() for prompt in PROMPTS))
        write_json(artifacts.PREVIOUS_ROUND_MANIFEST, FIRST)
        write_rows(artifacts.FEEDBACK, [])
        LABEL_CONFIG.parent.mkdir()
        LABEL_CONFIG.write_text("<View/>")
        GUIDELINES.write_text("Be kind.")
        assert exit_code(sample_completions.main) == 0
        yield folder


def test_every_prompt_has_its_different_responses(workspace: Path) -> None:
    tasks = [LabelTask.from_row(row) for row in read_rows(workspace / artifacts.LABEL_BATCH)]
    assert {task.prompt.id for task in tasks} == {"0", "1", "2"}
    for task in tasks:
        assert [completion.id for completion in task.completions] == ["m0", "m1", "m2", "m3"]
        assert len({completion.text for completion in task.completions}) == 4


def test_the_manifest_names_the_guidelines_by_their_hash(workspace: Path) -> None:
    manifest = read_json(workspace / artifacts.LABEL_BATCH_MANIFEST)
    assert manifest["guideline_version"] == hashlib.sha256(b"Be kind.").hexdigest()[:12]
    assert (manifest["tasks"], manifest["completions"]) == (3, 4)


def test_the_batch_id_changes_with_the_label_config(workspace: Path) -> None:
    before = read_json(workspace / artifacts.LABEL_BATCH_MANIFEST)
    batch = (workspace / artifacts.LABEL_BATCH).read_bytes()
    LABEL_CONFIG.write_text("<View><!-- changed --></View>")
    assert exit_code(sample_completions.main) == 0
    after = read_json(workspace / artifacts.LABEL_BATCH_MANIFEST)
    assert (workspace / artifacts.LABEL_BATCH).read_bytes() == batch
    assert after["batch_id"] != before["batch_id"]


def test_a_repeated_answer_is_drawn_again(workspace: Path) -> None:
    values = config.resolve(ROOT, "tiny", ["sample_completions.temperatures=[0.001]"])
    params = config.parse(values, "test").sample_completions
    engine = TransformersEngine.load(workspace / artifacts.SFT, "float32", 8)
    sampled = sample([engine], PROMPTS[:1], params, seed=1)
    assert len({draw.generation.text for draw in sampled[0]}) > 1
    assert {draw.temperature for draw in sampled[0]} > {0.001}


def test_a_seed_belongs_to_a_request() -> None:
    seeds = {seed_of(1, prompt, place, attempt) for prompt in "ab" for place in range(3) for attempt in range(2)}
    assert len(seeds) == 12
    assert seed_of(1, "a", 0, 0) == seed_of(1, "a", 0, 0)


def second_round(folder: Path, patch: pytest.MonkeyPatch, *overrides: str, **manifest: object) -> None:
    """A workspace whose earlier round has a policy of other weights and a reward model."""
    enter_workspace(folder, patch, overrides)
    make_policy(artifacts.SFT)
    make_policy(artifacts.PREVIOUS_POLICY, seed=7)
    make_reward_model(artifacts.PREVIOUS_POLICY, artifacts.PREVIOUS_REWARD_MODEL)
    write_rows(artifacts.PROMPTS_LABELING, (prompt.to_row() for prompt in PROMPTS))
    write_json(artifacts.PREVIOUS_ROUND_MANIFEST, SECOND | manifest)
    write_rows(artifacts.FEEDBACK, [])
    LABEL_CONFIG.parent.mkdir()
    LABEL_CONFIG.write_text("<View/>")
    GUIDELINES.write_text("Be kind.")


def test_the_next_round_samples_from_the_policy_of_the_last_and_scores_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_round(tmp_path, monkeypatch, "sample_completions.ask_first=least_sure")
    assert exit_code(sample_completions.main) == 0
    tasks = [LabelTask.from_row(row) for row in read_rows(artifacts.LABEL_BATCH)]
    engine = TransformersEngine.load(artifacts.PREVIOUS_POLICY, "float32", 8)
    params = config.load_params(Path("params.yaml"))
    expected = sample([engine], PROMPTS, params.sample_completions, params.seed)
    texts = {tuple(draw.generation.text.strip() for draw in draws) for draws in expected}
    assert {tuple(completion.text for completion in task.completions) for task in tasks} == texts
    assert all(set(task.scores) == {"m0", "m1", "m2", "m3"} and task.asked for task in tasks)
    unsure = [unsureness(task.scores) for task in tasks]
    assert unsure == sorted(unsure, reverse=True)


def test_people_look_at_rated_answers_first_beside_what_champion_and_challenger_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_round(tmp_path, monkeypatch)
    make_policy(artifacts.PREVIOUS_CHALLENGER, seed=9)
    asked = Conversation("rated", (Message("user", "two three"),), "feedback", "feedback", "CC-BY-4.0")
    write_rows(artifacts.FEEDBACK, [RatedAnswer(asked, "What was shown.", 0.3, "down").to_row()])
    assert exit_code(sample_completions.main) == 0
    tasks = {task.prompt.id: task for task in map(LabelTask.from_row, read_rows(artifacts.LABEL_BATCH))}
    assert set(tasks) == {"rated", "0", "1"}
    shown = tasks["rated"].completions[0]
    assert (shown.text, shown.temperature, shown.finish_reason) == ("What was shown.", 0.3, "stop")
    params = config.load_params(Path("params.yaml"))
    engine = TransformersEngine.load(artifacts.PREVIOUS_CHALLENGER, "float32", 8)
    (alone,) = sample([engine], [PROMPTS[0]], params.sample_completions, params.seed)
    texts = [completion.text for completion in tasks["0"].completions]
    assert texts[1::2] == [draw.generation.text.strip() for draw in alone][1::2]
    assert texts[0::2] != [draw.generation.text.strip() for draw in alone][0::2]


def test_with_a_reward_model_as_source_people_are_asked_about_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_round(tmp_path, monkeypatch, "label_source=reward_model", "reward_labels.check_share=0.3")
    assert exit_code(sample_completions.main) == 0
    assert [row["asked"] for row in read_rows(artifacts.LABEL_BATCH)].count(True) == 1


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (FIRST, "there is no earlier round"),
        ({"reward_model": {"held_out_accuracy_low": 0.51}}, "0.510 only, under reward_labels.min_accuracy=0.55"),
        ({"preferences": {"reward_model_agreement": 0.4}}, "agreed with the reward model on 40.0% of the pairs"),
    ],
)
def test_a_reward_model_that_passed_no_gate_labels_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: dict, said: str
) -> None:
    second_round(tmp_path, monkeypatch, "label_source=reward_model", **manifest)
    assert exit_code(sample_completions.main) == ExitCode.BAD_INPUT
    error = read_json(artifacts.FAILURES / "sample_completions.json")["error"]
    assert error.startswith("label_source: reward_model is refused")
    assert said in error


def test_who_is_least_sure_needs_an_earlier_reward_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second_round(tmp_path, monkeypatch, "sample_completions.ask_first=least_sure", **FIRST)
    assert exit_code(sample_completions.main) == ExitCode.BAD_INPUT
    assert "set previous_round.run" in read_json(artifacts.FAILURES / "sample_completions.json")["error"]
