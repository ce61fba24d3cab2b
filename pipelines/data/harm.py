"""Drops documents that a moderation classifier finds harmful."""

from collections.abc import Callable

from pipelines.core.records import Document
from pipelines.data.steps import Filter, Verdict

PASSAGE_CHARACTERS = 1000  # the classifier is trained on messages, not on manuals
MAX_PASSAGES = 8  # of one document, evenly spread

# Texts to one {category: probability} each.
Score = Callable[[list[str]], list[dict[str, float]]]


def passages(text: str) -> list[str]:
    """Up to MAX_PASSAGES passages of a text, from its start to its end."""
    starts = range(0, max(len(text), 1), PASSAGE_CHARACTERS)
    chosen = (
        starts
        if len(starts) <= MAX_PASSAGES
        else [starts[i * len(starts) // MAX_PASSAGES] for i in range(MAX_PASSAGES)]
    )
    return [text[start : start + PASSAGE_CHARACTERS] for start in chosen]


def harm_filter(score: Score, max_score: float) -> Filter:
    """Keep documents none of whose passages scores above `max_score` in any category."""

    def keep(document: Document) -> Verdict:
        worst: dict[str, float] = {}
        for scores in score(passages(document.text)):
            worst = {category: max(value, worst.get(category, 0.0)) for category, value in scores.items()}
        category = max(worst, key=lambda name: worst[name], default="")
        if worst.get(category, 0.0) > max_score:
            return False, f"{category} above {max_score}"
        return True

    return keep
