"""The moderation policy: what is scored, which score counts, and what the reader gets instead.

The classifier is `pipelines.model.moderation.Moderator`; categories, thresholds and templates are in
`moderation.yaml`. Every decision is logged with scores and classifier version, never with the text.
"""

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, get_args

from pipelines.core.config import read_yaml
from pipelines.core.errors import BadInput
from pipelines.model.disguise import undisguise

log = logging.getLogger("colloquy.moderation")

POLICY_FILE = Path(__file__).with_name("moderation.yaml")
DISGUISE = "disguise"  # the category of an answer that hides its words, see pipelines/model/disguise.py
SHORTEST_SENTENCE = 4  # words
NEWEST_WORDS = 9  # about what comes between two checks
WORDS_BETWEEN_RUNS = 3
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n")
Place = Literal["system", "input", "output"]


class Classifier(Protocol):
    """What the policy needs of `pipelines.model.moderation.Moderator`."""

    @property
    def version(self) -> str: ...
    @property
    def categories(self) -> Sequence[str]: ...
    def score(self, texts: list[str]) -> list[dict[str, float]]: ...


class ModerationDown(Exception):
    """The classifier failed; nothing passes unchecked."""


class Rule(NamedTuple):
    """One category of the policy file."""

    category: str
    threshold: float
    places: tuple[Place, ...]  # where it blocks; nowhere: the category is allowed
    template: str


class Decision(NamedTuple):
    """A text that must not pass: why, and what is said instead."""

    place: Place
    category: str
    score: float
    template: str


class Blocked(Exception):
    """A stream was stopped; what was held back is gone."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.category)
        self.decision = decision


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy file with the release's threshold filled in."""

    rules: tuple[Rule, ...]
    output_threshold: float  # at least, of every rule for output
    hold_tokens: int
    check_tokens: int
    windows: tuple[int, ...]  # words
    longest: int  # characters
    hidden_letters: int  # so many in `longest` characters are a disguise

    def decide(self, place: Place, scores: dict[str, float]) -> Decision | None:
        """The first rule that blocks these scores, or None."""
        for rule in self.rules:
            score = scores.get(rule.category, 0.0)
            threshold = max(rule.threshold, self.output_threshold) if place == "output" else rule.threshold
            if place in rule.places and score >= threshold:
                return Decision(place, rule.category, score, rule.template)
        return None

    def reached(self, scores: dict[str, float]) -> dict[str, bool]:
        """Which categories are at or above their threshold, whether or not they block anywhere."""
        thresholds = {rule.category: rule.threshold for rule in self.rules}
        return {category: score >= thresholds[category] for category, score in scores.items()}


def read_policy(path: Path, threshold: float) -> Policy:
    """Read the policy file; rules without a threshold of their own take `threshold`."""
    values = read_yaml(path)
    try:
        rules = tuple(_rule(category, rule, threshold) for category, rule in values["categories"].items())
        stream = values["stream"]
        return Policy(
            rules,
            float(stream["threshold"]),
            int(stream["hold_tokens"]),
            int(stream["check_tokens"]),
            tuple(int(size) for size in stream["windows"]),
            int(stream["longest"]),
            int(stream["hidden_letters"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is not a moderation policy: {type(error).__name__} {error}") from error


def _rule(category: str, values: dict[str, Any], threshold: float) -> Rule:
    if unknown := set(values["blocks"]) - set(get_args(Place)):
        raise ValueError(f"{category} blocks in {sorted(unknown)}; valid: {get_args(Place)}")
    own = values["threshold"]
    return Rule(category, threshold if own is None else float(own), tuple(values["blocks"]), values["template"])


class Moderation:
    """The policy over a classifier, off the event loop; it fails closed."""

    def __init__(self, classifier: Classifier, policy: Policy) -> None:
        known = {rule.category for rule in policy.rules}
        if unknown := sorted(set(classifier.categories) - known):
            raise BadInput(f"{POLICY_FILE.name} has no rule for {unknown}; every category of the classifier needs one")
        self.policy = policy
        self._classifier = classifier
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="moderate")

    async def check(self, texts: Sequence[tuple[Place, str]]) -> list[Decision | None]:
        """Judge each text by what holds at its place.

        Raises:
            ModerationDown: the classifier failed.
        """
        scores = await self.score([text for _, text in texts])
        decisions = [self.policy.decide(place, each) for (place, _), each in zip(texts, scores, strict=True)]
        for decision, each in zip(decisions, scores, strict=True):
            if decision is not None:
                self.log(decision, each)
        return decisions

    async def score(self, texts: list[str]) -> list[dict[str, float]]:
        """The classifier's scores of each text, by category.

        Raises:
            ModerationDown: the classifier failed.
        """
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._thread, self._classifier.score, texts)
            if len(scores) != len(texts):
                raise ValueError(f"{len(scores)} scores came for {len(texts)} texts")
        except Exception as error:
            log.exception("the classifier failed")
            raise ModerationDown(str(error)) from error
        return scores

    @property
    def version(self) -> str:
        """The classifier's."""
        return self._classifier.version

    def guard(self) -> "StreamGuard":
        """A guard for one streamed answer."""
        return StreamGuard(self)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def log(self, decision: Decision, scores: dict[str, float]) -> None:
        """Write down what was stopped and why, never the text."""
        rounded = {category: round(score, 4) for category, score in scores.items()}
        entry = {
            "place": decision.place,
            "category": decision.category,
            "scores": rounded,
            "model": self._classifier.version,
        }
        log.warning("blocked %s", json.dumps(entry, sort_keys=True))


def windows_of(text: str, sizes: Sequence[int]) -> Iterator[str]:
    """What is judged of a text that is still growing: all of it, its newest words in runs of `sizes`, its sentences.

    A harmful span fills at least one of them for the most part, wherever it stands and whatever surrounds it. A run
    or sentence of a few words is judged with its neighbours only: it says too little.
    """
    yield text
    words = text.split()
    for end in range(len(words), max(min(sizes), len(words) - NEWEST_WORDS), -WORDS_BETWEEN_RUNS):
        yield from (" ".join(words[max(0, end - size) : end]) for size in sizes)
    yield from (sentence for sentence in _SENTENCE_END.split(text) if sentence.count(" ") + 1 >= SHORTEST_SENTENCE)


class StreamGuard:
    """Holds a streamed answer back until it is checked together with the tokens that follow it.

    A piece leaves only after `hold_tokens` later pieces were seen and everything up to them passed; fewer than
    `hold_tokens + check_tokens` pieces wait. A span of up to `hold_tokens` pieces is thus judged whole before any of
    it is shown.
    """

    def __init__(self, moderation: Moderation) -> None:
        self._moderation = moderation
        self._policy = moderation.policy
        self._held: deque[str] = deque()
        self._shown = ""  # the newest of it, which what follows is read with
        self._clean: set[str] = set()  # windows of the last check

    async def push(self, piece: str) -> str:
        """Take the next piece, return what may be shown now.

        Raises:
            Blocked: the answer must stop here.
        """
        self._held.append(piece)
        if len(self._held) < self._policy.hold_tokens + self._policy.check_tokens:
            return ""
        await self._check()
        return self._release(self._policy.check_tokens)

    async def finish(self) -> str:
        """The rest of the answer, checked to its end."""
        if self._held:
            await self._check()
        return self._release(len(self._held))

    def _release(self, pieces: int) -> str:
        text = "".join(self._held.popleft() for _ in range(pieces))
        self._shown = (self._shown + text)[-self._policy.longest :]
        return text

    async def _check(self) -> None:
        held = "".join(self._held)
        before = max(0, self._policy.longest - len(held))
        plain = undisguise((self._shown[-before:] if before else "") + held)
        decision = self._moderation.policy.decide(
            "output", {DISGUISE: min(1.0, plain.hidden_letters / self._policy.hidden_letters)}
        )
        if decision is not None:
            self._moderation.log(decision, {DISGUISE: decision.score})
            self._stop(decision)
        windows = list(dict.fromkeys(windows_of(plain.text, self._policy.windows)))
        new: list[tuple[Place, str]] = [("output", window) for window in windows if window not in self._clean]
        for found in await self._moderation.check(new):
            if found is not None:
                self._stop(found)
        self._clean = set(windows)

    def _stop(self, decision: Decision) -> NoReturn:
        self._held.clear()
        raise Blocked(decision)
