"""Rankings to pairs that a reward model can train on, if the labelers agree enough.

In: artifacts/sample_completions (the batch), artifacts/pull_annotations, and the preferences of the rounds before. Out:
train.jsonl and held_out.jsonl, Preference rows of all rounds split by prompt; agreement.json and agreement.html, how
far the labelers agree with each other and with an earlier reward model, and who stands out. Below
`prepare_preferences.min_agreement` the stage fails and names the tasks to talk about: nothing trains on labels that
people would not give again. So it does where a reward model labels (`label_source`) that people do not agree with.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from labeling.agreement import (
    Agreement,
    Counts,
    Estimate,
    LabelerReport,
    by_labeler,
    compare,
    measure,
    share_alike,
    task_counts,
)
from labeling.agreement_report import render
from labeling.judgement import CANNOT_JUDGE, unlabeled_reason
from labeling.pairs import (
    by_score,
    held_out_prompts,
    model_preferences,
    once,
    people_preferences,
    prompt_of,
    room_for_model,
    weighed,
)
from labeling.ranking import consensus
from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_json, read_rows, write_json, write_rows
from pipelines.core.records import Annotation, LabelTask, Preference, content_id
from pipelines.core.rounds import EarlierRound
from pipelines.core.sections.labeling import PreparePreferences
from pipelines.core.stage import open_stage

NAMED_TASKS = 5  # of the least agreement, that the gate's message names


class Kept(NamedTuple):
    """The annotations that count as labels by task, and how many did not count, by reason."""

    labels: dict[str, list[Annotation]]
    dropped: Counter[str]


def keep_labels(annotations: Iterable[Annotation], task_ids: set[str], min_lead_time_s: float) -> Kept:
    """One annotation per labeler and task, the latest; without those that are no label."""
    latest: dict[tuple[str, str], Annotation] = {}
    dropped: Counter[str] = Counter()
    for annotation in sorted(annotations, key=lambda entry: entry.annotation_id):
        reason = unlabeled_reason(annotation, min_lead_time_s)
        if annotation.task_id not in task_ids:
            reason = "task is not of this batch"
        elif reason is None and CANNOT_JUDGE in annotation.flags:
            reason = "cannot judge"
        if reason:
            dropped[reason] += 1
            continue
        if (annotation.labeler, annotation.task_id) in latest:
            dropped["replaced by a later one"] += 1
        latest[annotation.labeler, annotation.task_id] = annotation
    labels: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in latest.values():
        labels[annotation.task_id].append(annotation)
    return Kept(dict(sorted(labels.items())), dropped)


def agreement_with_model(
    tasks: Mapping[str, LabelTask], labels: Mapping[str, Sequence[Annotation]], rng: np.random.Generator
) -> Estimate | None:
    """How far each labeler, who saw no score, orders pairs as the earlier reward model does; None without one."""
    counts = []
    for task_id, given in labels.items():
        if scores := tasks[task_id].scores:
            one_by_one = [compare(label.ranking, by_score(scores)) for label in given]
            counts.append(Counts(sum(one.alike for one in one_by_one), sum(one.compared for one in one_by_one)))
    return share_alike(counts, rng) if counts else None


def check_model(summary: Mapping[str, Any], source: str, floor: float) -> None:
    """The gate of `label_source: reward_model`.

    Raises:
        BadInput: people agree with the reward model less than the floor, or nobody checked it.
    """
    found = summary["reward_model"]
    if source == "people" or (found and found["value"] is not None and found["value"] >= floor):
        return
    known = found and found["value"] is not None
    share = f"{found['value']:.1%} of the pairs of {found['tasks']} tasks" if known else "nothing that was checked"
    raise BadInput(
        f"label_source: reward_model is refused: people agree with the reward model on {share}, under the floor "
        f"reward_labels.min_agreement={floor:g}; start a run with label_source=people, which learns from where they "
        "disagree"
    )


def earlier_preferences(earlier: EarlierRound) -> tuple[list[Preference], list[Preference]]:
    """Training and held-out pairs of the rounds before."""
    if earlier.run is None:
        return [], []
    paths = (artifacts.PREVIOUS_PREFERENCES_TRAIN, artifacts.PREVIOUS_PREFERENCES_HELD_OUT)
    train, held_out = ([Preference.from_row(row) for row in read_rows(path)] for path in paths)
    return train, held_out


def task_rows(tasks: Mapping[str, LabelTask], labels: Mapping[str, Sequence[Annotation]]) -> list[Row]:
    """What is known of each labelled task, least agreement first."""
    rows = []
    for task_id, given in labels.items():
        counts = task_counts([label.ranking for label in given])
        rows.append(
            {
                "task_id": task_id,
                "prompt": tasks[task_id].prompt.messages[-1].content[:120],
                "labels": len(given),
                "agreement": counts.alike / counts.compared if counts.compared else None,
                "consensus": [list(group) for group in consensus([label.ranking for label in given]).ranking()],
                "flags": dict(sorted(Counter(flag for label in given for flag in label.flags).items())),
            }
        )
    return sorted(rows, key=lambda row: (2.0 if row["agreement"] is None else row["agreement"], row["task_id"]))


def summarize(
    agreement: Agreement,
    labelers: Sequence[LabelerReport],
    rows: Sequence[Row],
    kept: Kept,
    floor: float,
    progress: Mapping[str, int],
    with_model: Estimate | None,
) -> dict[str, Any]:
    """agreement.json: all that the report shows."""
    labels = [label for given in kept.labels.values() for label in given]
    return {
        "agreement": {name: estimate.to_row() for name, estimate in agreement._asdict().items()},
        "min_agreement": floor,
        "progress": dict(progress),
        "reward_model": with_model.to_row() if with_model else None,
        "labels": len(labels),
        "dropped": dict(sorted(kept.dropped.items())),
        "simulated_share": sum(label.simulated for label in labels) / len(labels) if labels else 0.0,
        "guideline_versions": sorted({label.guideline_version for label in labels}),
        "labelers": [
            {
                "labeler": report.labeler,
                "simulated": report.simulated,
                "annotations": report.annotations,
                "agreement_with_others": report.agreement.to_row(),
                "compared_pairs": report.compared_pairs,
                "kept_order_share": report.kept_order_share,
                "median_lead_time_s": report.median_lead_time_s,
                "suspicions": list(report.suspicions),
            }
            for report in labelers
        ],
        "tasks": list(rows),
    }


def check_agreement(summary: Mapping[str, Any]) -> None:
    """The data gate.

    Raises:
        BadInput: labelers agree less than the floor, or nothing says how far they agree.
    """
    floor, pairwise = summary["min_agreement"], summary["agreement"]["pairwise"]
    if floor == 0 or (pairwise["value"] is not None and pairwise["value"] >= floor):
        return
    if pairwise["value"] is None:
        raise BadInput(
            "no task was ranked by two labelers, so nothing says how far they agree; raise labeling.overlap_share, "
            "or set prepare_preferences.min_agreement=0 to train on labels that nobody has checked"
        )
    worst = [row for row in summary["tasks"] if row["agreement"] is not None][:NAMED_TASKS]
    tasks = "; ".join(f"{row['task_id']} ({row['agreement']:.0%}, {row['prompt'][:50]!r})" for row in worst)
    people = "; ".join(
        f"{row['labeler']} {' and '.join(row['suspicions'])}" for row in summary["labelers"] if row["suspicions"]
    )
    raise BadInput(
        f"labelers agree on {pairwise['value']:.1%} of the pairs of {pairwise['tasks']} tasks, under the floor "
        f"prepare_preferences.min_agreement={floor:g}. Least agreement: {tasks}. "
        + (f"Ask first: {people}. " if people else "")
        + "Talk about these tasks, make the guidelines clearer, let people update their rankings in Label Studio, and "
        f"run again; {artifacts.AGREEMENT_REPORT} and MLflow have the whole report"
    )


def metrics_of(summary: Mapping[str, Any], train: list[Preference], held_out: list[Preference]) -> dict[str, float]:
    """The stage's figures; a measure that could not be taken is left out."""
    names = {"pairwise": "pairwise_agreement"}
    measured = {
        names.get(name, name): estimate["value"]
        for name, estimate in summary["agreement"].items()
        if estimate["value"] is not None
    }
    counts = {
        "labels": summary["labels"],
        "labels_dropped": sum(summary["dropped"].values()),
        "tasks_labeled": len(summary["tasks"]),
        "tasks_with_overlap": summary["agreement"]["pairwise"]["tasks"],
        "suspicious_labelers": sum(bool(row["suspicions"]) for row in summary["labelers"]),
        "simulated_share": summary["simulated_share"],
        "pairs_train": len(train),
        "pairs_held_out": len(held_out),
        "pairs_by_reward_model": sum(pair.by_reward_model for pair in train),
    }
    if summary["reward_model"] is not None and summary["reward_model"]["value"] is not None:
        counts["reward_model_agreement"] = summary["reward_model"]["value"]
    return measured | {name: float(value) for name, value in counts.items()}


def report_agreement(
    tasks: Mapping[str, LabelTask], annotations: list[Annotation], kept: Kept, params: PreparePreferences, seed: int
) -> dict[str, Any]:
    """Measure how far labelers agree and write agreement.json and agreement.html."""
    rng = np.random.default_rng(seed)
    rankings = {task_id: [label.ranking for label in given] for task_id, given in kept.labels.items()}
    labelers = by_labeler(annotations, params.min_lead_time_s, rng)
    rows = task_rows(tasks, kept.labels)
    agreement = measure(rankings, rng)
    with_model = agreement_with_model(tasks, kept.labels, rng)
    progress = read_json(artifacts.PROGRESS)
    summary = summarize(agreement, labelers, rows, kept, params.min_agreement, progress, with_model)
    write_json(artifacts.AGREEMENT, summary)
    artifacts.AGREEMENT_REPORT.write_text(render(summary), encoding="utf-8")
    return summary


def main() -> None:
    with open_stage("prepare_preferences") as stage:
        params, seed = stage.params.prepare_preferences, stage.params.seed
        tasks = {row["id"]: LabelTask.from_row(row) for row in read_rows(artifacts.LABEL_BATCH)}
        annotations = [Annotation.from_row(row) for row in read_rows(artifacts.ANNOTATIONS)]
        kept = keep_labels(annotations, set(tasks), params.min_lead_time_s)
        if not kept.labels:
            raise BadInput(f"none of the {len(annotations)} annotations is a label: {dict(kept.dropped)}")

        summary = report_agreement(tasks, annotations, kept, params, seed)
        stage.tracker.log_artifact(artifacts.AGREEMENT_REPORT)
        stage.tracker.log_artifact(artifacts.AGREEMENT)
        by_model = str(stage.params.label_source == "reward_model").lower()
        simulated = str(summary["simulated_share"] > 0).lower()
        stage.tracker.set_tags({"simulated_labels": simulated, "reward_model_labels": by_model})
        check_agreement(summary)
        check_model(summary, stage.params.label_source, stage.params.reward_labels.min_agreement)

        earlier = EarlierRound.read()
        before, before_held_out = earlier_preferences(earlier)
        pairs = people_preferences(tasks, kept.labels, params.max_pairs_per_prompt, seed)
        seen = {prompt_of(pair) for pair in before}
        apart = {prompt_of(pair) for pair in before_held_out}
        apart |= held_out_prompts((prompt_of(pair) for pair in pairs), params.held_out_share, seed) - seen
        train = [*before, *(pair for pair in pairs if prompt_of(pair) not in apart)]
        held_out = [*before_held_out, *(pair for pair in pairs if prompt_of(pair) in apart)]
        room = room_for_model(train, stage.params.reward_labels.max_pairs_share)
        others = [task for task in tasks.values() if content_id(task.prompt.chat) not in apart]
        train += model_preferences(others, earlier.simulated, room, params.max_pairs_per_prompt, seed)
        train, held_out = weighed(once(train)), weighed(once(held_out))
        write_rows(artifacts.PREFERENCES_TRAIN, (pair.to_row() for pair in train))
        write_rows(artifacts.PREFERENCES_HELD_OUT, (pair.to_row() for pair in held_out))
        print(f"{summary['labels']} labels, dropped {summary['dropped']}: {len(train)} + {len(held_out)} pairs")
        stage.write_metrics(metrics_of(summary, train, held_out))


if __name__ == "__main__":
    main()
