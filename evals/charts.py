"""Where the marks of the report card's charts lie: numbers in, positions out; the template draws them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SIDES = ("candidate", "baseline", "base")
CURVE_WIDTH, CURVE_HEIGHT = 260, 96  # of a curve's plot, in pixels
MOST_POINTS = 400  # of a curve; more can't be told apart
SMOOTHED_OVER = 20  # points from which on a running mean is drawn


class Scale(NamedTuple):
    """A linear map of [low, high] onto 0 to 100."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], room: float = 0.06) -> "Scale":
        """The scale that holds `values` with some room on either side."""
        low, high = min(values), max(values)
        margin = (high - low) * room or abs(high) * room or 1.0
        return cls(low - margin, high + margin)

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def interval_bars(sides: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """Where each side's interval and value lie on a common scale; empty when nothing was scored."""
    shown = {side: found for side, found in sides.items() if found and found["value"] is not None}
    if not shown:
        return []
    scale = Scale.over([found[bound] for found in shown.values() for bound in ("low", "high")])
    return [
        {"side": side, "left": scale.at(found["low"]), "right": scale.at(found["high"]), "at": scale.at(found["value"])}
        for side, found in shown.items()
    ]


def rule_bar(rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rule's interval beside its limit and the side of it that is allowed; None for a rule without an interval."""
    low, high, limit = rule["low"], rule["high"], rule["limit"]
    if low is None or high is None or limit is None:
        return None
    value = rule["candidate"] if rule["difference"] is None else rule["difference"]
    even = {"non_inferior_ratio": 1.0, "non_inferior_difference": 0.0, "superior_difference": 0.0}.get(rule["kind"])
    scale = Scale.over([low, high, limit, *([] if even is None else [even])], 0.15)
    upward = rule["upward"]
    return {
        "left": scale.at(low),
        "right": scale.at(high),
        "at": scale.at(value),
        "limit": scale.at(limit),
        "even": None if even is None else scale.at(even),
        "allowed": (scale.at(limit), 100.0) if upward else (0.0, scale.at(limit)),
    }


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Each value with up to `window` − 1 before it, averaged."""
    total, found = 0.0, []
    for position, value in enumerate(values):
        total += value - (values[position - window] if position >= window else 0.0)
        found.append(total / min(position + 1, window))
    return found


def _path(steps: Sequence[float], values: Sequence[float], across: Scale, up: Scale) -> str:
    places = (
        f"{across.at(step) * CURVE_WIDTH / 100:.1f},{CURVE_HEIGHT - up.at(value) * CURVE_HEIGHT / 100:.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    return " ".join(places)


def curve(title: str, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """One curve as SVG points, raw and smoothed, with the ends of its axes."""
    every = -(-len(points) // MOST_POINTS)
    steps = [float(step) for step, _ in points[::every]]
    values = [value for _, value in points[::every]]
    across, up = Scale(steps[0], max(steps[-1], steps[0] + 1)), Scale.over(values)
    smooth = running_mean(values, max(2, len(values) // 10)) if len(values) >= SMOOTHED_OVER else []
    return {
        "title": title,
        "raw": _path(steps, values, across, up),
        "smooth": _path(steps, smooth, across, up) if smooth else "",
        "low": min(values),
        "high": max(values),
        "first": int(steps[0]),
        "last": points[-1][0],
        "end": points[-1][1],
    }


def stacked(counts: Mapping[str, int], order: Sequence[str]) -> list[dict[str, Any]]:
    """Segments of a bar from 0 to 100, in `order`, those with nothing left out."""
    total = sum(counts.get(name, 0) for name in order) or 1
    left, found = 0.0, []
    for name in order:
        if count := counts.get(name, 0):
            width = 100 * count / total
            found.append({"name": name, "count": count, "left": round(left, 2), "width": round(width, 2)})
            left += width
    return found
