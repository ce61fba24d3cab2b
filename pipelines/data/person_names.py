"""Finds names of people: capitalized words, judged by name lists, by the words around and by spaCy's entity model.

The small model alone misses many names and takes names of software for people; name lists alone can't tell Mark from
mark. So lists say what may be a name, the model and the words around decide. The model runs only on windows of text
around what may be a name, each distinct one a few times a document: its cost follows the names, not the text.
"""

import importlib
import pkgutil
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

Labels = list[tuple[int, int, str]]  # start, end, label of each entity in a text
Recognize = Callable[[list[str]], Iterable[Labels]]


class Lexicon(NamedTuple):
    """Words by what they may be; lower case and without accents."""

    given: frozenset[str]
    family: frozenset[str]
    places: frozenset[str]
    common: frozenset[str]


class Run(NamedTuple):
    """Capitalized words in a row that may be a name."""

    words: tuple[str, ...]
    start: int
    end: int


def folded(word: str) -> str:
    """Lower case and without accents, so that "José" and "JOSE" are one."""
    if word.isascii():
        return word.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", word.lower()) if not unicodedata.combining(c))


def _provider_words(package: str, attributes: Iterable[str]) -> Iterator[str]:
    """The word lists that Faker keeps for its locales, without starting a generator for each."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        provider = importlib.import_module(f"{package}.{module.name}").Provider
        for attribute in attributes:
            values = getattr(provider, attribute, ())
            if not isinstance(values, property):
                yield from (value for value in values if isinstance(value, str))


def _words(names: Iterable[str]) -> frozenset[str]:
    return frozenset(part for name in names for part in folded(name).split() if len(part) > 1)


@cache
def load_lexicon() -> Lexicon:
    """The name and place lists of Faker's locales, and its common English words with those that start sentences."""
    kinds = ("names", "names_male", "names_female")
    given = _words(_provider_words("faker.providers.person", [f"first_{kind}" for kind in kinds]))
    family = _words(_provider_words("faker.providers.person", [f"last_{kind}" for kind in kinds]))
    areas = ("countries", "states", "provinces", "regions", "departments", "counties", "cities", "city_names")
    places = frozenset(folded(name) for name in _provider_words("faker.providers.address", areas))
    english = importlib.import_module("faker.providers.lorem.en_US").Provider.word_list
    return Lexicon(given, family, places | _MORE_PLACES, frozenset(map(str.lower, english)) | _MORE_COMMON)


_MORE_PLACES_TEXT = """
america europe asia africa london paris usa uk england britain scotland wales russia
"""
_MORE_PLACES = frozenset(_MORE_PLACES_TEXT.split())
_MORE_COMMON_TEXT = """
hi hello hey dear thanks thank regards sincerely best yours contact please ship attn from re subject to cc send
ask tell monday tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december note warning example see new more read click open save install use
using when where why how what which who whose is are was were has have had do does did can could should would
will shall might must if then else for and or not the a an this that these those it its my your his her our
their i we you he she they as at by in of on with but so yes no ok english french german spanish italian dutch
swedish danish polish greek russian chinese japanese korean indian american british european african asian
python java ruby julia django flask rails linux windows unix apache mozilla google microsoft oracle jenkins
travis perl swift kotlin scala rust dart ada pascal haskell erlang elixir docker debian ubuntu fedora red hat
suse mac ios android chrome firefox safari opera edge gaussian bayesian boolean markov fourier laplace newton
euler poisson bernoulli lasso ridge cython jython latin roman unicode max min case mark page field long day key
bill rich grant pat art bob jack guy van chase lane drew chance christian
"""
_MORE_COMMON = frozenset(_MORE_COMMON_TEXT.split())
_LINKS = "de|da|do|dos|das|del|della|di|du|la|le|van|von|der|den|ter|ten|bin|ibn|al|el|af|y|e|zu"
_WORD = r"[^\W\d_a-zß-öø-ÿ](?:[^\W\d_]+(?:['’-][^\W\d_]+)*|['’][^\W\d_]+(?:-[^\W\d_]+)*|\.)"
_RUN = re.compile(
    rf"(?<![\w@#$/\\.<`'_-])(?<!::){_WORD}(?:(?:[ ](?:{_LINKS})){{0,2}}[ ]{_WORD})*(?![\w@`(=])(?![.:/]\w)"
)
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam|Lady|Lord|Judge|Senator|Herr|Frau|Monsieur|Madame|Señor"
    r"|Señora|Sra|Mme|Capt|Captain"
    r"|Sgt|Lt|Col|Rev|Fr|Aunt|Uncle|Sister|Brother)\.? $"
)
_CUE = re.compile(
    r"(?:\b(?:[Mm]y name is|[Nn]ame(?:d| is|:)|I'm|I am|[Tt]his is|[Dd]ear|[Hh]i|[Hh]ello|[Hh]ey|[Tt]hanks,?"
    r"|[Rr]egards,?|[Ss]incerely,?|[Ll]ove,?"
    r"|[Bb]est,?|[Cc]heers,?|[Ss]igned:?|[Aa]ttn:?|wife|husband|son|daughter|brother|sister|friend|mother|father"
    r"|uncle|aunt|cousin|colleague|boss"
    r"|neighbou?r|patient|called|meet|met|told|asked|with|by|for|and|from|to|call|tell|ask|says|said),?\s+$)"
)
_PERSONAL_AFTER = re.compile(
    r"^(?:['’]s\b|,? (?:said|says|asked|told|wrote|writes|lives|lived|works|worked|was born|is|was|has|had|will"
    r"|would|can|who|he|she|and)\b|[,!?.]|\s*$)"
)
_NOT_PEOPLE = re.compile(
    r"\b(?:inc|ltd|llc|llp|plc|gmbh|corp|co|company|group|bank|university|college|school|institute|hospital"
    r"|center|centre|museum|foundation|society"
    r"|association|club|party|committee|department|ministry|agency|council|library|church|street|st|road|rd"
    r"|avenue|ave|lane|drive|square|park|river"
    r"|lake|mount|mountain|island|city|county|state|states|republic|kingdom|north|south|east|west|airport|station"
    r"|hotel|restaurant|stores?|sons"
    r"|brothers|bros|associates|partners|holdings|industries|systems|solutions|services|technologies|software"
    r"|project|server|database|api|http"
    r"|class|method|function|model|view|admin|user|version|page|table|query|library|framework|release|guide"
    r"|documentation|license|licence|foundation"
    r"|prize|award|act|law|theorem|equation|distribution|kernel|algorithm|process|regression|transform|matrix"
    r"|index|test|score|league|cup|falls"
    r"|bay|beach|valley|hills?|palace|tower|bridge|hall|house|theatre|theater|times|post|news|press|journal"
    r"|review|magazine|band|orchestra)\b",
    re.IGNORECASE,
)


def runs(text: str, lexicon: Lexicon) -> Iterator[Run]:
    """Capitalized words in a row, without the common words they begin or end with."""
    for match in _RUN.finditer(text):
        words = list(re.finditer(r"\S+", match[0]))
        while words and _is_plain(words, 0, lexicon):
            words.pop(0)
        while words and _is_plain(words, -1, lexicon):
            words.pop()
        if words:
            start, end = match.start() + words[0].start(), match.start() + words[-1].end()
            if text[start:end].isupper() and len(words) == 1:
                continue  # an abbreviation
            yield Run(tuple(folded(word[0]) for word in words), start, end)


def _is_plain(words: list[re.Match[str]], place: int, lexicon: Lexicon) -> bool:
    word = folded(words[place][0])
    if word not in lexicon.common:
        return False
    beside = folded(words[1 if place == 0 else -2][0]) if len(words) > 1 else ""
    is_name = word in (lexicon.given if place == 0 else lexicon.family)
    return not (
        is_name and beside in (lexicon.family if place == 0 else lexicon.given) and beside not in lexicon.common
    )


def may_be_name(run: Run, lexicon: Lexicon, before: str) -> bool:
    """Whether `run` is worth a look by the model: a word of it is in a list of names, or a title stands before."""
    if _TITLE.search(before):
        return True
    return any(_in(lexicon.given, word) or _in(lexicon.family, word) for word in run.words)


def _in(names: frozenset[str], word: str) -> bool:
    return word in names or ("-" in word and any(part in names for part in word.split("-")))


def is_person(run: Run, text: str, label: str, lexicon: Lexicon) -> bool:
    """The verdict on one run; `label` is the model's for it, "" if it gave none."""
    before, after = text[max(0, run.start - 30) : run.start], text[run.end : run.end + 20]
    name = text[run.start : run.end]
    if _TITLE.search(before):
        return True
    if _NOT_PEOPLE.search(name) or _NOT_PEOPLE.match(after.lstrip()) or folded(name) in lexicon.places:
        return False
    given, family = _in(lexicon.given, run.words[0]), _in(lexicon.family, run.words[-1])
    if len(run.words) == 1:
        if not (given or family):
            return label == "PERSON" and _CUE.search(before) is not None
        if label == "PERSON":
            return True
        return given and _CUE.search(before) is not None and _PERSONAL_AFTER.search(after) is not None
    if given and (family or any(_in(lexicon.given, word) for word in run.words[1:])):
        return label not in ("GPE", "LOC") or family
    if given:
        return label in ("PERSON", "ORG", "")
    return label == "PERSON"


_WINDOW = 160  # characters around a run that the model sees
_LOOKS = 2  # windows of one document in which the same run is judged


def _windows(text: str, found: list[Run]) -> list[tuple[int, int]]:
    """Stretches of text, on borders of lines or words, that hold `found`; those that overlap become one."""
    windows: list[tuple[int, int]] = []
    for run in found:
        start = max(text.rfind("\n\n", 0, run.start) + 2 if "\n\n" in text[: run.start] else 0, run.start - _WINDOW)
        start = text.find(" ", start, run.start) + 1 or start if start and text[start - 1].isalnum() else start
        stop = text.find("\n\n", run.end)
        end = min(len(text) if stop < 0 else stop, run.end + _WINDOW)
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(end, windows[-1][1]))
        else:
            windows.append((start, end))
    return windows


def _label(run: Run, labels: Labels) -> str:
    return next((label for start, end, label in labels if start < run.end and run.start < end), "")


def find_persons(text: str, lexicon: Lexicon, recognize: Recognize) -> list[tuple[int, int]]:
    """Start and end of each name in `text`, by position. `recognize` gives the model's entities for a list of texts."""
    found = list(runs(text, lexicon))
    by_words: dict[tuple[str, ...], list[Run]] = {}
    for run in found:
        by_words.setdefault(run.words, []).append(run)
    looks: list[Run] = []
    for words, same in by_words.items():
        if len(words) == 1 and re.search(rf"\b{re.escape(words[0])}\b", text):
            continue  # a word that also occurs in lower case is a word
        looks += [run for run in same if may_be_name(run, lexicon, text[max(0, run.start - 12) : run.start])][:_LOOKS]
    if not looks:
        return []
    looks.sort(key=lambda run: run.start)
    windows = _windows(text, looks)
    labels: Labels = []
    for (offset, _), entities in zip(windows, recognize([text[start:end] for start, end in windows]), strict=True):
        labels += [(start + offset, end + offset, label) for start, end, label in entities]
    names = {run.words for run in looks if is_person(run, text, _label(run, labels), lexicon)}
    inside = [run for run in found if run.words in names]
    return [(run.start, run.end) for run in inside]
