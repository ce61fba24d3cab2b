"""Drops text that a machine made: an assistant's boilerplate, filled templates, loops, and noise.

The signs are heuristics about form; whether fluent prose came from a model, they can't tell. Every rule is a share or a
density, so that a text about assistants or templates stays.
"""

import math
import re
import zlib
from collections import Counter

from pipelines.core.records import Document
from pipelines.core.sections.data import MachineTextRules
from pipelines.data.steps import Filter, Verdict

# What assistants say about themselves and about what they refuse, in lower case with a straight apostrophe.
ASSISTANT_PHRASES = (
    "as an ai language model", "as an ai assistant, i", "as an ai model, i", "as an ai developed by",
    "as an ai trained by", "as an ai, i ", "as a large language model, i", "as a language model, i",
    "as of my last knowledge update", "as of my last update", "as of my knowledge cutoff", "my knowledge cutoff",
    "i am an ai language model", "i'm an ai language model", "i am just an ai", "i'm just an ai", "i am only an ai",
    "i do not have personal opinions", "i don't have personal opinions", "i do not have personal experiences",
    "i don't have personal experiences", "i don't have access to real-time", "i do not have access to real-time",
    "i cannot fulfill that request", "i cannot fulfill this request", "i can't fulfill that request",
    "i can't fulfill this request", "i cannot fulfill your request", "i can't fulfill your request",
    "but i cannot assist with", "but i can't assist with", "but i cannot generate", "but i can't generate",
    "but i cannot comply with", "but i can't comply with", "i'm unable to assist with", "i am unable to assist with",
    "i cannot provide assistance with", "i can't provide assistance with", "regenerate response",
    "certainly! here is a", "certainly! here's a", "certainly! here are", "here's a rewritten version",
    "here is a rewritten version", "feel free to ask if you have any more questions",
)  # fmt: skip
# What a template leaves behind where nobody filled it in, and spun alternatives: {good|great|fine}.
_UNFILLED = re.compile(
    r"\[(?:insert|enter|add|your|company|product|city|keyword|first|last|client|brand)[ _-][\w '/-]{2,40}\]"
    r"|\{[^{}|\n]{2,30}(?:\|[^{}|\n]{2,30}){2,}\}|%(?:first|last|company|city|keyword)_?(?:name)?%|lorem ipsum dolor"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
SENTENCE_WORDS = 6  # shorter ones repeat in honest text
TEMPLATE_REPEATS = 3  # of one skeleton before it counts
WINDOW_WORDS = 100
SAMPLE_CHARACTERS = 20_000  # of a long text, for what is the same everywhere in it


def per_1000_words(count: int, text: str) -> float:
    """`count` for each 1,000 words of `text`."""
    return 1000 * count / max(len(text.split()), 1)


def template_share(text: str) -> float:
    """Words in sentences that differ from TEMPLATE_REPEATS − 1 or more others in names and numbers alone, to all words.

    Names and numbers are the words that have a capital or no letter at all.
    A sentence that repeats to the letter is not counted: that is repetition, which other rules measure.
    """
    skeletons: dict[str, set[str]] = {}
    words: Counter[str] = Counter()
    for sentence in _SENTENCE_END.split(text):
        parts = sentence.split()
        if len(parts) < SENTENCE_WORDS:
            continue
        own = [part for part in parts if part.islower()]
        if 2 * len(own) >= len(parts):  # a list of names is no template
            skeleton = " ".join(own)
            skeletons.setdefault(skeleton, set()).add(sentence)
            words[skeleton] += len(parts)
    made = sum(words[skeleton] for skeleton, sentences in skeletons.items() if len(sentences) >= TEMPLATE_REPEATS)
    return made / max(len(text.split()), 1)


def loop_share(text: str, min_different: int) -> float:
    """Windows of WINDOW_WORDS words with fewer than `min_different` different ones, to all windows; 0 without any."""
    words = text.split()
    windows = [words[start : start + WINDOW_WORDS] for start in range(0, len(words), WINDOW_WORDS)]
    whole = [window for window in windows if len(window) == WINDOW_WORDS]
    return sum(len(set(window)) < min_different for window in whole) / max(len(whole), 1)


def compression_ratio(sample: str) -> float:
    """Bytes that DEFLATE leaves of the UTF-8 text, to its bytes."""
    raw = sample.encode()
    return len(zlib.compress(raw, 1)) / max(len(raw), 1)


def character_entropy(sample: str) -> float:
    """Shannon entropy of the characters other than white space, in bits each; English prose has a little over 4."""
    counts = Counter(sample)
    counts = Counter({character: count for character, count in counts.items() if not character.isspace()})
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values())


def machine_reason(text: str, rules: MachineTextRules) -> str | None:
    """Which of `rules` the text breaks, None when it breaks none."""
    lowered = text.lower().replace("’", "'")
    phrases = sum(lowered.count(phrase) for phrase in ASSISTANT_PHRASES)
    if phrases and per_1000_words(phrases, text) > rules.max_assistant_phrases_per_1000_words:
        return "phrases of an assistant"
    places = [found[0] for found in _UNFILLED.finditer(lowered)]
    if (
        len(set(places)) >= rules.min_different_unfilled
        and per_1000_words(len(places), text) > rules.max_unfilled_per_1000_words
    ):
        return "template left unfilled"
    if loop_share(text, rules.min_different_of_100_words) > rules.max_loop_share:
        return "words in a loop"
    if template_share(text) > rules.max_template_share:
        return "sentences from a template"
    sample = text[:SAMPLE_CHARACTERS]
    if compression_ratio(sample) < rules.min_compression_ratio:
        return "compresses unlike language"
    if not rules.min_entropy <= character_entropy(sample) <= rules.max_entropy:
        return "character frequencies unlike language"
    return None


def machine_text_filter(rules: MachineTextRules) -> Filter:
    """Keep documents that break none of `rules`."""

    def keep(document: Document) -> Verdict:
        reason = machine_reason(document.text, rules)
        return True if reason is None else (False, reason)

    return keep
