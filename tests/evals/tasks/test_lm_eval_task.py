"""lm-evaluation-harness runs its tasks on our engine, gets the numbers of its own model, and errors are clear."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from evals.task import metrics_in, summarize
from evals.tasks.lm_eval_task import LmEvalTask
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows
from pipelines.model.engine import TransformersEngine

pytest.importorskip("lm_eval")
SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
TEXT = {"doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "answer", "test_split": "test"}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """A folder with a task of each kind over local data."""
    rows = [
        {"question": "How many legs has a dog?", "choices": ["two", "four legs", "six"], "answer": 1, "text": "a b c"},
        {
            "question": "What is wet?",
            "choices": ["fire", "water", "sand"],
            "answer": 1,
            "text": "The sea is wide. " * 9,
        },
        {"question": "Which is red?", "choices": ["a", "b", "c"], "answer": 2, "text": "Rain falls down."},
    ]
    folder = tmp_path / "tasks"
    write_rows(folder / "rows.jsonl", rows)
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    for name, settings in {
        "own_choices": {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"},
        "own_words": {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
            "doc_to_target": "{{choices[answer]}}",
            "metric_list": [{"metric": "exact_match"}, {"metric": "bleu"}],
        },
        "own_text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": name} for name in ("word_perplexity", "bits_per_byte")],
        },
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | TEXT | data | settings))
    return folder


def load(name: str, own_tasks: Path, **changed: Any) -> LmEvalTask:
    settings = {"data": {}, "limit": None, "chat_template": False, "batch_size": 2, "seed": 1} | changed
    return LmEvalTask.load(name, own_tasks, **settings)


def by_the_harness_alone(tasks: Any, folder: Path) -> dict[str, Any]:
    """What the harness finds with its own model."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    return evaluate(
        HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=1), tasks, bootstrap_iters=0
    )


def test_results_are_those_of_the_harness_with_its_own_model(tiny_model: Path, own_tasks: Path) -> None:
    engine = TransformersEngine.load(tiny_model, "float32", 4)
    for name in ("own_choices", "own_words", "own_text"):
        task = load(name, own_tasks)
        ours = task.run(engine)
        assert [result.to_row() for result in task.run(engine)] == [result.to_row() for result in ours]
        theirs = by_the_harness_alone(task.tasks, tiny_model)
        found = summarize(ours, metrics_in(ours), 0.05, 1)
        means = {metric: mean["value"] for metric, mean in found.items() if mean["n"]}
        assert means == pytest.approx({metric: theirs["results"][name][f"{metric},none"] for metric in means}, rel=1e-4)
        assert means
        for result, sample in zip(ours, theirs["samples"][name], strict=True):
            assert result.prompt == sample["arguments"][0][0]
            if name == "own_words":
                assert result.response == sample["filtered_resps"][0]


def test_a_metric_of_the_corpus_alone_is_unscored_with_the_reason(tiny_model: Path, own_tasks: Path) -> None:
    task = load("own_words", own_tasks, limit=2)
    results = task.run(TransformersEngine.load(tiny_model, "float32", 4))
    found = summarize(results, metrics_in(results), 0.05, 1)
    assert found["exact_match"]["n"] == 2
    assert (found["bleu"]["n"], found["bleu"]["unscored"]) == (0, 2)
    assert "whole corpus" in found["bleu"]["reason"]


def test_prompts_can_go_through_the_chat_template(tiny_model: Path, own_tasks: Path) -> None:
    engine = TransformersEngine.load(tiny_model, "float32", 4)
    prompt = load("own_words", own_tasks, chat_template=True, limit=1).run(engine)[0].prompt
    assert prompt.startswith("<|im_start|>") and prompt.rstrip().endswith("assistant")


def test_a_task_that_does_not_exist_names_its_neighbours(own_tasks: Path) -> None:
    with pytest.raises(BadInput, match=r"lm_eval_tasks: lm-evaluation-harness has no task 'gsm8l'.*gsm8k"):
        load("gsm8l", own_tasks)


def test_data_that_no_hub_gives_says_what_to_do(own_tasks: Path) -> None:
    with pytest.raises(BadInput, match=r"gsm8k can't be loaded: .*openai/gsm8k.*evaluate\.lm_eval_data"):
        load("gsm8k", own_tasks)


def test_a_missing_folder_of_data_is_named(own_tasks: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no folder /nowhere for 'openai/gsm8k'"):
        load("gsm8k", own_tasks, data={"openai/gsm8k": "/nowhere"})


def test_tasks_that_run_code_outside_the_sandbox_are_refused(own_tasks: Path, tmp_path: Path) -> None:
    text = (own_tasks / "own_words.yaml").read_text()
    (own_tasks / "own_words.yaml").write_text(text + "unsafe_code: true\n")
    with pytest.raises(BadInput, match="outside a sandbox"):
        load("own_words", own_tasks)


def test_a_task_of_the_harness_reads_a_local_copy_of_its_data(tiny_model: Path, own_tasks: Path) -> None:
    if not (SHARED / "gsm8k").is_dir():
        pytest.skip("needs ../shared/data/gsm8k")
    task = load("gsm8k", own_tasks, data={"openai/gsm8k": str(SHARED / "gsm8k")}, limit=2)
    engine = TransformersEngine.load(tiny_model, "float32", 4)
    for found in task.tasks["tasks"].values():
        found.set_config(key="num_fewshot", value=0)
        found.set_config(key="generation_kwargs", value={"max_gen_toks": 8}, update=True)
    results = task.run(engine)
    assert [result.id for result in results] == ["gsm8k/0", "gsm8k/1"]
    assert set(results[0].scores) == {"exact_match,strict-match", "exact_match,flexible-extract"}


def test_mmlu_in_another_language_runs_by_name(tiny_model: Path, own_tasks: Path, tmp_path: Path) -> None:
    asked = [("Wie viele Beine hat eine Katze?", "BCAD"[number % 4]) for number in range(6)]
    choices = {
        f"option_{letter}": choice for letter, choice in zip("abcd", ("Drei", "Vier", "Sechs", "Acht"), strict=True)
    }
    rows = [
        {"question": f"{number}. {text}", "answer": answer} | choices for number, (text, answer) in enumerate(asked)
    ]
    categories = ("Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences")
    for split in ("dev", "test"):
        data = [row | {"subject": "x", "subject_category": category} for category in categories for row in rows]
        write_rows(tmp_path / "lite" / "de" / f"{split}.jsonl", data)
    task = load("global_mmlu_de", own_tasks, data={"CohereLabs/Global-MMLU-Lite": str(tmp_path / "lite")}, limit=3)
    results = task.run(TransformersEngine.load(tiny_model, "float32", 4))
    assert len(results) == 3 * len(categories)
    assert {result.detail["target"] for result in results} <= {"0", "1", "2", "3", *"ABCD"}
    assert all("acc" in result.scores for result in results)
