"""The rule by which simulated labelers judge a response, and that evaluations use as a control.

It looks at the surface only: it is there so that the loop can run, and be tested, without people. It knows nothing
of truth or harm. Whatever is trained on it is marked as simulated and learns no more than these five habits.
"""

import re
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_STOP_WORDS = frozenset(
    re.findall(
        r"\S+",
        "about after also and any are because been before but can could did does don't for from had has have her him "
        "his how into its just let like make many may might more most much not one only our out over please she should "
        "some such tell than that the their them then there these they this those through too under very was were what "
        "when where which who why will with would write you your",
    )
)
_STEM_LETTERS = 5  # "planting" and "plants" share "plant"; crude, and language-neutral enough
_SHORT_WORDS = 4  # words; below it a response is hardly one
_LONG_WORDS = 60  # words; beyond it a response is longer than a chat answer should be


class RuleParts(NamedTuple):
    """What the rule looks at, each from 0 (bad) to 1 (good)."""

    relevant: float  # share of the prompt's content words that come up
    stopped: float  # 1 when the model ended the response itself
    sentences: float  # half for a beginning, half for an end, as a complete sentence has them
    varied: float  # share of word pairs that are not repetitions
    length: float  # 1 between 4 and 60 words, less outside
    wordlike: float  # share of words that have the shape of a word


WEIGHTS = RuleParts(relevant=0.3, stopped=0.2, sentences=0.1, varied=0.2, length=0.1, wordlike=0.1)


def _stems(words: list[str]) -> set[str]:
    return {word[:_STEM_LETTERS] for word in words if len(word) > 2 and word not in _STOP_WORDS}


def _wordlike(word: str) -> bool:
    return len(word) <= 18 and (word.isdigit() or not word.isascii() or bool(re.search("[aeiouy]", word)))


def rule_parts(prompt: str, completion: str, stopped: bool) -> RuleParts:
    """The five habits and the shape of words in `completion`, an answer to `prompt`; all 0 when it has no word."""
    text = completion.strip()
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return RuleParts(0, 0, 0, 0, 0, 0)
    asked = _stems([word.lower() for word in _WORD.findall(prompt)])
    pairs = list(zip(words, words[1:], strict=False))
    begins = not text[0].islower()
    ends = text[-1] in ".!?…:)\"'`”»。！？"
    return RuleParts(
        relevant=len(asked & _stems(words)) / len(asked) if asked else 0.5,
        stopped=float(stopped),
        sentences=(begins + ends) / 2,
        varied=len(set(pairs)) / len(pairs) if pairs else 1.0,
        length=min(1.0, len(words) / _SHORT_WORDS, _LONG_WORDS / len(words)),
        wordlike=sum(map(_wordlike, words)) / len(words),
    )


def rule_score(prompt: str, completion: str, stopped: bool) -> float:
    """How good the rule finds `completion` as an answer to `prompt`, from 0 to 1; a pure function of its arguments."""
    parts = rule_parts(prompt, completion, stopped)
    return sum(weight * part for weight, part in zip(WEIGHTS, parts, strict=True))
