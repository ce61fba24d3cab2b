"""The tables of docs/SCALING.md from `deploy/scaling.py`.

python -m deploy.scaling_tables      # prints them; a test compares them with the page
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from math import ceil

from deploy.scaling import (
    GIGA,
    SOURCES,
    TERA,
    Load,
    artifact_bytes,
    canary_minutes,
    conversation_bytes_per_day,
    kv_bytes_per_token,
    label_hours,
    moderation_cores,
    most_answers_at_once,
    peak_answers_per_s,
    replica_s_per_answer,
    serving_gpus,
    step_s,
    training_gpu_hours,
    training_gpus,
    valkey_bytes,
)

RESULTS: list[tuple[str, str, Callable[[Load], str]]] = [
    (
        "answers a second, at the peak",
        "answers_per_day / 86,400 × peak_factor",
        lambda x: f"{peak_answers_per_s(x):,.0f}",
    ),
    (
        "cache of one token",
        "2 × layers × kv_heads × head_size × bytes_per_kv_value",
        lambda x: f"{kv_bytes_per_token(x) / 1e3:,.0f} kB",
    ),
    (
        "answers that fit at once",
        "(memory − weights) / cache of an answer",
        lambda x: f"{most_answers_at_once(x):,.0f} a replica",
    ),
    (
        "one step",
        "max(bytes read / bandwidth, 2 × parameters × batch / FLOP/s)",
        lambda x: f"{1000 * step_s(x):.1f} ms",
    ),
    ("tokens a second that one reader sees", "1 / step", lambda x: f"{1 / step_s(x):.0f}"),
    (
        "a replica's time for an answer",
        "2 × parameters × uncached prompt / FLOP/s + answer_tokens × step / batch",
        lambda x: f"{1000 * replica_s_per_answer(x):.0f} ms",
    ),
    ("**GPUs that serve**", "peak × time / busy_share, in whole replicas", lambda x: f"**{serving_gpus(x):,}**"),
    ("cores that moderate", "peak × (1 + windows) × moderation_ms", lambda x: f"{moderation_cores(x):,}"),
    (
        "**conversations, a year, all copies**",
        "bytes a day × 365 × copies",
        lambda x: f"**{conversation_bytes_per_day(x) * 365 * x.copies / TERA:,.0f} TB**",
    ),
    (
        "shards of the document store after a year",
        "bytes a day × 365 / shard_tb",
        lambda x: f"{ceil(conversation_bytes_per_day(x) * 365 / TERA / x.shard_tb)}",
    ),
    (
        "sessions and contexts in Valkey",
        "users × (session_bytes + prompt)",
        lambda x: f"{valkey_bytes(x) / GIGA:.1f} GB",
    ),
    (
        "request logs",
        "answers_per_day × log_bytes × log_days",
        lambda x: f"{x.answers_per_day * x.log_bytes * x.log_days / TERA:.1f} TB",
    ),
    (
        "artifacts of the kept rounds",
        "kept_rounds × parameters × (3 × 2 + 2 × 2 × 16)",
        lambda x: f"{artifact_bytes(x) / TERA:,.0f} TB",
    ),
    (
        "GPUs to fine-tune; to run PPO",
        "16 and 36 bytes a parameter in 80 % of the memory, nodes of 8",
        lambda x: "; ".join(str(n) for n in training_gpus(x).values()),
    ),
    (
        "GPU hours of a round: SFT; PPO",
        "6 × parameters × tokens; 22 × parameters × episode tokens",
        lambda x: f"{training_gpu_hours(x)['SFT']:,.0f}; {training_gpu_hours(x)['PPO']:,.0f}",
    ),
    (
        "GPU hours from nothing",
        "6 × parameters × corpus_tokens",
        lambda x: f"{training_gpu_hours(x)['from nothing'] / 1e6:.1f} million",
    ),
    (
        "**label hours of a round**",
        "tasks × (1 − overlap_share + overlap_share × overlap_labelers) × ranking_s",
        lambda x: f"**{label_hours(x):,.0f}**",
    ),
    (
        "labelers for a round in a week",
        "label hours / labeler_hours_per_week",
        lambda x: f"{ceil(label_hours(x) / x.labeler_hours_per_week)}",
    ),
    ("a canary's watch", "canary_conversations / conversations a day", lambda x: f"{canary_minutes(x):.0f} minutes"),
]

# (what changes, where it is set)
KNOBS: list[tuple[dict[str, float], str]] = [
    ({"answer_tokens": 500}, "`chat.max_new_tokens`, and what labelers and the reward model like"),
    ({"prompt_tokens": 4000}, "`chat.context_tokens`"),
    ({"cached_share": 0.0}, "sticky routing of a conversation to its replica"),
    ({"bytes_per_weight": 2, "bytes_per_kv_value": 2, "gpu_tflops": 989}, "the engine's number format: bfloat16"),
    ({"batch": 64}, "`chat.max_concurrent`: faster for each reader"),
    ({"peak_factor": 3}, "users in one time zone"),
    ({"parameters": 8e9, "layers": 32, "gpus_per_replica": 1}, "`base_model`: 8 B (32 layers)"),
]


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Short, exact for the inputs here."""
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{value / size:g}{word}"
    return f"{value:,g}" if value < 1000 else f"{value:,.0f}"


def inputs_table(load: Load) -> str:
    rows = [(f"`{field.name}`", number(getattr(load, field.name)), SOURCES[field.name]) for field in fields(load)]
    return table(("input", "value", "source"), rows)


def results_table(load: Load) -> str:
    return table(("what", "formula", "result"), [(name, formula, show(load)) for name, formula, show in RESULTS])


def knobs_table(load: Load) -> str:
    """GPUs that serve, and what one reader sees, when one knob turns."""
    rows = [("nothing", "", f"{serving_gpus(load):,}", f"{1 / step_s(load):.0f}")]
    for change, where in KNOBS:
        turned = replace(load, **change)
        words = ", ".join(f"`{name}` {number(value)}" for name, value in change.items())
        rows.append((words, where, f"{serving_gpus(turned):,}", f"{1 / step_s(turned):.0f}"))
    return table(("change", "where it is set", "GPUs that serve", "tokens a second"), rows)


def main() -> None:
    for make in (inputs_table, results_table, knobs_table):
        print(make(Load()), end="\n\n")


if __name__ == "__main__":
    main()
