"""Rankings with ties and gaps to pairs, and several rankings of one task to one consensus. Pure functions.

A ranking is a tuple of groups of completion ids, best group first; the members of a group are tied. Ids that a
ranking leaves out are not compared by it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Ranking = tuple[tuple[str, ...], ...]
Pair = tuple[str, str]  # better, worse


def pairs_of(ranking: Ranking) -> set[Pair]:
    """Every (better, worse) that `ranking` states; tied responses make no pair."""
    return {
        (better, worse)
        for place, group in enumerate(ranking)
        for better in group
        for below in ranking[place + 1 :]
        for worse in below
    }


def places(ranking: Ranking) -> dict[str, float]:
    """The place of each response, 1 for the best; tied ones share the mean of the places that they take up."""
    found: dict[str, float] = {}
    before = 0
    for group in ranking:
        found |= dict.fromkeys(group, before + (len(group) + 1) / 2)
        before += len(group)
    return found


class Consensus(NamedTuple):
    """What several rankings of one task say together: an order that may leave pairs open."""

    margins: dict[Pair, int]  # (better, worse) -> labelers who say so, less those who say the opposite

    def ranking(self) -> Ranking:
        """The order as groups, by how many responses each is better than."""
        names = {name for pair in self.margins for name in pair}
        beaten = Counter(better for better, _ in self.margins)
        levels = sorted({beaten[name] for name in names}, reverse=True)
        return tuple(tuple(sorted(name for name in names if beaten[name] == level)) for level in levels)


def _reachable(edges: set[Pair], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        at = todo.pop()
        for better, worse in edges:
            if better == at and worse not in seen:
                seen.add(worse)
                todo.append(worse)
    return seen


def consensus(rankings: Sequence[Ranking]) -> Consensus:
    """Ranked pairs (Tideman 1987): majorities are accepted from the clearest down, unless they close a circle.

    Majorities of the same size are taken together, and one of them that would close a circle with the others is left
    out, so that the result depends on no name. What follows from accepted pairs is accepted, with the margin that the
    labelers gave it, or 0 where they did not compare the two. A pair that half of the labelers see the other way
    round stays open.
    """
    votes: Counter[Pair] = Counter(pair for ranking in rankings for pair in pairs_of(ranking))
    margin = {(a, b): votes[a, b] - votes[b, a] for a, b in votes if votes[a, b] > votes[b, a]}
    accepted: set[Pair] = set()
    for size in sorted(set(margin.values()), reverse=True):
        level = {pair for pair, value in margin.items() if value == size}
        open_pairs = {(a, b) for a, b in level if a not in _reachable(accepted, b)}
        accepted |= {(a, b) for a, b in open_pairs if a not in _reachable(accepted | open_pairs, b)}
    closed = {(a, b) for a in {better for better, _ in accepted} for b in _reachable(accepted, a)}
    return Consensus({pair: margin.get(pair, 0) for pair in sorted(closed)})


def strongest_pairs(agreed: Consensus, limit: int, draw: Iterable[float]) -> list[Pair]:
    """The `limit` pairs to train on: the clearest majorities first, then the widest gaps, then by `draw`.

    A labeler who wavers swaps neighbours; the ends of a ranking are hardly ever the wrong way round. `draw` gives one
    random number per pair, so that no name decides.
    """
    place = places(agreed.ranking())
    luck = dict(zip(agreed.margins, draw, strict=False))
    return sorted(
        agreed.margins,
        key=lambda pair: (-agreed.margins[pair], place[pair[0]] - place[pair[1]], luck[pair]),
    )[:limit]
