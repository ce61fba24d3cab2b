"""agreement.html: how far labelers agree, who stands out, and which tasks to talk about, as one static page."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem .3rem 0;
border-bottom: 1px solid #dfe3ec; vertical-align: top; overflow-wrap: anywhere; }
th { white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; } .warn { color: #a3310f; font-weight: 600; }
.note { background: #fff4d6; padding: .6rem .9rem; border-radius: 8px; } svg { width: 100%; height: auto; }
"""

MEASURES = {
    "pairwise": ("Pairwise agreement", "share of response pairs that two labelers order alike; 50 % is chance"),
    "kendall_tau": ("Kendall's tau-b", "order of two labelers; 0 is chance, 1 the same"),
    "kendall_w": ("Kendall's W", "concordance of all labelers of a task; 0 to 1"),
    "krippendorff_alpha": ("Krippendorff's alpha", "ordinal; 0 is chance, 1 the same"),
}
TASKS_SHOWN = 40


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: set[int]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        marked = (f'<{tag} class="number">' if place in numeric else f"<{tag}>" for place in range(len(cells)))
        return "<tr>" + "".join(f"{mark}{cell}</{tag}>" for mark, cell in zip(marked, cells, strict=True)) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def labeler_plot(labelers: Sequence[Mapping[str, Any]], overall: float | None, floor: float) -> str:
    """Each labeler's agreement with the others as a dot with its interval, beside chance, floor and overall (SVG)."""
    left, width, step = 210, 660, 26
    height = step * len(labelers) + 46

    def x(share: float) -> float:
        return round(left + width * share, 1)

    parts = [f'<svg viewBox="0 0 900 {height}" role="img" aria-label="Agreement of each labeler with the others">']
    marks = [(0.5, "chance", "#9aa3b5"), (floor, "floor", "#a3310f"), (overall, "all", "#2f5fd0")]
    for at, name, colour in marks:
        if at is not None:
            label_y = {"chance": height - 4, "floor": 12, "all": height - 4}[name]
            parts.append(
                f'<line x1="{x(at)}" x2="{x(at)}" y1="18" y2="{height - 22}" stroke="{colour}" stroke-dasharray="4 3"/>'
                f'<text x="{x(at)}" y="{label_y}" font-size="12" fill="{colour}" text-anchor="middle">'
                f"{name} {at:.0%}</text>"
            )
    for place, row in enumerate(labelers):
        y = 34 + place * step
        colour = "#a3310f" if row["suspicions"] else "#1f2430"
        parts.append(f'<text x="0" y="{y + 4}" font-size="13" fill="{colour}">{html.escape(row["labeler"])}</text>')
        estimate = row["agreement_with_others"]
        if estimate["value"] is not None:
            if estimate["low"] is not None:
                parts.append(
                    f'<line x1="{x(estimate["low"])}" x2="{x(estimate["high"])}" y1="{y}" y2="{y}" '
                    f'stroke="{colour}" stroke-width="2"/>'
                )
            parts.append(f'<circle cx="{x(estimate["value"])}" cy="{y}" r="4.5" fill="{colour}"/>')
    return "".join(parts) + "</svg>"


def task_plot(tasks: Sequence[Mapping[str, Any]]) -> str:
    """How many tasks have which agreement, in ten bars (SVG)."""
    known = [row["agreement"] for row in tasks if row["agreement"] is not None]
    bins = [0] * 10
    for share in known:
        bins[min(9, int(share * 10))] += 1
    most = max([*bins, 1])
    parts = ['<svg viewBox="0 0 900 170" role="img" aria-label="Tasks by agreement">']
    for place, count in enumerate(bins):
        tall = round(110 * count / most, 1)
        at = 20 + place * 86
        parts.append(f'<rect x="{at}" y="{135 - tall}" width="78" height="{tall}" fill="#2f5fd0" rx="3"/>')
        parts.append(f'<text x="{at + 39}" y="{128 - tall}" font-size="12" text-anchor="middle">{count or ""}</text>')
        label = f"{place * 10}–{place * 10 + 10} %"
        parts.append(f'<text x="{at + 39}" y="154" font-size="12" fill="#5b6478" text-anchor="middle">{label}</text>')
    return "".join(parts) + "</svg>"


def _measures(agreement: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            name,
            _number(agreement[key]["value"]),
            f"{_number(agreement[key]['low'])} to {_number(agreement[key]['high'])}",
            str(agreement[key]["tasks"]),
            meaning,
        ]
        for key, (name, meaning) in MEASURES.items()
    ]
    return _table(["measure", "value", "95 % interval", "tasks", "what it says"], rows, {1, 2, 3})


def _reward_model(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["value"] is None:
        return "<p>People compared nothing that the round before's reward model scored.</p>"
    return (
        f"<p>People, who saw no score, order {found['value']:.1%} of the pairs as the round before's reward model does "
        f"(95 % interval {found['low']:.1%} to {found['high']:.1%}, {found['tasks']} tasks).</p>"
    )


def _labelers(labelers: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            html.escape(row["labeler"]) + (" (simulated)" if row["simulated"] else ""),
            str(row["annotations"]),
            _number(row["agreement_with_others"]["value"]),
            f"{row['kept_order_share']:.0%}",
            f"{row['median_lead_time_s']:.1f}",
            f'<span class="warn">{html.escape("; ".join(row["suspicions"]))}</span>',
        ]
        for row in labelers
    ]
    head = ["labeler", "submitted", "agreement with others", "kept the shown order", "median seconds", "stands out"]
    return _table(head, rows, {1, 2, 3, 4})


def _tasks(tasks: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            row["task_id"],
            html.escape(row["prompt"]),
            str(row["labels"]),
            _number(row["agreement"]),
            " &gt; ".join(" = ".join(group) for group in row["consensus"]),
            html.escape(", ".join(f"{flag} ({count})" for flag, count in row["flags"].items())),
        ]
        for row in tasks[:TASKS_SHOWN]
    ]
    return _table(["task", "prompt", "labels", "agreement", "consensus", "flags"], rows, {2, 3})


def render(summary: Mapping[str, Any]) -> str:
    """The page for agreement.json's content."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items()) or "none"
    simulated = summary["simulated_share"]
    note = f'<p class="note">{simulated:.0%} of these labels were made by simulated labelers.</p>' if simulated else ""
    overall = summary["agreement"]["pairwise"]["value"]
    progress = summary["progress"]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Agreement of labelers</title>',
            f"<style>{STYLE}</style><h1>Agreement of labelers</h1>",
            f"<p>{progress['labels']} of {progress['labels_needed']} labels that were asked for, "
            f"{progress['tasks']} of {progress['tasks_needed']} tasks complete.</p>",
            f"<p>{summary['labels']} labels on {len(summary['tasks'])} tasks under guidelines "
            f"{html.escape(', '.join(summary['guideline_versions']))}. Not counted: {html.escape(dropped)}.</p>",
            note,
            _measures(summary["agreement"]),
            _reward_model(summary["reward_model"]),
            "<h2>Each labeler against the others</h2>",
            labeler_plot(summary["labelers"], overall, summary["min_agreement"]),
            _labelers(summary["labelers"]),
            "<h2>Tasks by agreement</h2>",
            task_plot(summary["tasks"]),
            f"<h2>Tasks, least agreement first (at most {TASKS_SHOWN})</h2>",
            _tasks(summary["tasks"]),
            "</html>\n",
        ]
    )
