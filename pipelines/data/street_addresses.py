"""Finds street addresses by their shape: number and street name, unit, town, postal code, country; also post boxes.

The forms are those of the Universal Postal Union's address guides: "12 Elm Street", "rue du Lac 4", "Lindenstraße 7".
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import NamedTuple

_NUMBER = r"(?<![\d.])\d{1,5}(?:[-/]\d{1,4})?[A-Za-z]?"
_NAME = (  # a capitalized word: "Saint-Cyr", "St."
    r"(?!(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Box)\b)[^\W\d_a-zß-öø-ÿ][^\W\d_]*(?:[-'’][^\W\d_]+)*\b"
    r"(?:(?<=\b\w\w\w)\.|(?<=\b\w\w)\.|(?<=\b\w)\.)?"
)
_STEM = r"[^\W\d_a-zß-öø-ÿ](?:[^\W\d_]|-)*?(?<=[a-zß-öø-ÿ])"  # "Linden" of "Lindenstraße"
_LINK = (
    r"(?:de|del|della|di|da|do|dos|das|du|des|la|las|le|les|los|el|den|der|van|von|zum|zur|am|im|of|the|y|e|und|af"
    r"|[dl]['’]\w+)"
)
_ORDINAL = r"\d{1,3}(?:st|nd|rd|th|e|er|\.)?"
_WORD = rf"(?:{_NAME}|{_LINK}|{_ORDINAL})"

_AFTER_NAME = (  # "Elm Street"
    r"(?:[Ss]treets?|St|Str|[Aa]venues?|Ave?|[Rr]oads?|Rd|[Ll]anes?|Ln|[Dd]rives?|Dr|[Bb]oulevard|Blvd|[Cc]ourts?"
    r"|Ct|Crt|[Pp]laces?|Pl"
    r"|[Tt]errace|Terr?|[Cc]ircles?|Cir|[Ss]quares?|Sq|Crescent|Cres|Close|Highway|Hwy|Parkway|Pkwy|Trail|Trl|Way"
    r"|Walk|Row|Mews|Alley"
    r"|Broadway|Quay|Esplanade|Parade|Pde|Grove|Gardens?|Gdns|Loop|Pike|Turnpike|Plaza|Plz|Ridge|Rise|Run"
    r"|Expressway|Fork|Forks"
    r"|Green|Heights|Hill|Hills|Hollow|Junction|Knoll|Landing|Manor|Meadows?|Mount|Orchard|Park|Pass|Path|Pine"
    r"|Point|Promenade"
    r"|Route|Spur|Station|Vale|Valley|View|Vista|Wharf|Yard|Causeway|Bypass|Crossing|Cove|Bend|Canyon|Divide"
    r"|Falls|Ferry|Field|Fields"
    r"|Freeway|Glen|Harbors?|Haven|Island|Isle|Keys?|Lake|Lodge|Mall|Mill|Mills|Mission|Motorway|Neck|Oval"
    r"|Overpass|Port|Prairie"
    r"|Ranch|Rapids|Rest|River|Shoals?|Shores?|Springs?|Stravenue|Stream|Summit|Throughway|Trace|Track|Tunnel"
    r"|Union|Village|Ville|Well|Wells)"
)
_BEFORE_NAME = (  # "Rue du Lac"
    r"(?:[Rr]ue|[Aa]venue|Av|[Bb]oulevard|Bd|[Pp]lace|[Cc]hemin|[Aa]llée|[Qq]uai|[Ii]mpasse|[Cc]ours|[Rr]oute"
    r"|[Cc]alle|C/|[Aa]venida|Avda?"
    r"|[Pp]aseo|[Pp]laza|[Cc]arrera|[Cc]amino|[Cc]arretera|[Vv]ia|[Vv]iale|[Cc]orso|[Pp]iazza|[Vv]icolo|[Ll]argo"
    r"|[Rr]ua|[Tt]ravessa|[Pp]raça"
    r"|[Ee]strada|[Uu]l|[Uu]lica|[Aa]l|[Oo]s|[Ss]tr|[Ss]trada|[Bb]ulevardul|[Uu]litsa|[Pp]rospekt|[Jj]alan|Jl"
    r"|[Aa]m|[Ii]m|[Aa]n der|[Aa]uf der|[Zz]um|[Zz]ur"
    r"|Rr|Rúa|Carrer|Jirón|Jr|Travesía|Ronda|Unter den|Hinter den|In der|Alte|Neue|Vasúti|P[lł]ac)\.?"
)
_IN_NAME = (  # "Lindenstraße", "Drottninggatan"
    r"(?:stra(?:ß|ss)e|str\.?|gasse|weg|platz|allee|gatan|gata|gate|gt\.?|vägen|väg|gränd|stigen|vej|gade|stræde"
    r"|vænget|vei|veien|veg|vegen|bakken"
    r"|katu|tie|polku|kuja|kaari|ranta|laan|straat|plein|dijk|kade|singel|steenweg|gracht|dreef|hof|pad|utca"
    r"|körút|tér|ulice|náměstí|ulica|cesta|iela|tee|braut|götu)"
)
_UNIT = (
    r"(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|Rm|Bldg|Building|App|Appartement|Wohnung|Piso|Office|Lot"
    r"|Box)\.? ?#?\d{0,5}[A-Za-z]?\b"
    r"|# ?\d{1,5}[A-Za-z]?\b|\d{1,2}(?:st|nd|rd|th) (?:[Ff]loor|Fl)\b"
)
_POSTAL_CODE = (
    r"(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[\dW] ?[A-Z\d]{4}|[A-Z]\d[A-Z] ?\d[A-Z]\d"
    r"|(?:[A-Z]{1,2}-)?\d{3} \d{2}|\d{4} ?[A-Z]{2}|\d{2}-\d{3}|\d{5}-\d{3,4}"
    r"|(?:[A-Z]{1,2}-)?\d{4,6})\b"
)
_STATE = r"[A-Z][A-Za-z]{1,2}\b"

_NUMBER_FIRST = (
    rf"\b{_NUMBER},? (?:{_WORD} ){{1,5}}{_AFTER_NAME}\b\.?(?: (?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\b)?"
)
_TYPE_FIRST = (
    rf"\b(?:{_NUMBER},? )?{_BEFORE_NAME} (?:{_LINK} )*{_NAME}(?: {_WORD}){{0,4}}?,? (?:n[º°o]\.? ?)?(?!\d{{5}})"
    rf"{_NUMBER}\b"
    rf"|\b{_NUMBER},? (?:{_NUMBER},? |bis,? |ter,? )?{_BEFORE_NAME} (?:{_LINK} )*{_NAME}(?: {_WORD}){{0,3}}?"
    r"(?=[,\n.;]| \d| Apt| Suite|$)"
)
_COMPOUND = (
    rf"\b(?:{_NUMBER},? )?{_NAME}(?: {_NAME})? (?:[Cc]addesi|[Ss]oka[kğ]ı?|[Cc]ad\.|[Ss]ok\.|[Bb]ulvarı|[Uu]tca"
    rf"|út|[Tt]ér|[Gg]atan|[Aa]llé|[Pp]latz|u\.|krt\.|sgt\.?|[Gg]ade|[Vv]ej|[Vv]eg|[Vv]ei|[Vv]äg|[Ss]traße"
    rf"|[Aa]llee),? (?:[Nn]o:? ?)?{_NUMBER}\b|"
    rf"(?:\b{_NUMBER},? )?(?:{_NAME} ){{0,2}}?{_STEM}{_IN_NAME},? {_NUMBER}\b"
    rf"|\b{_NUMBER},? (?:{_NAME} ){{0,2}}?{_STEM}{_IN_NAME}\b"
)
_BOX = (
    r"\b[Pp]\.? ?[Oo]\.? ?[Bb]ox:? \d{1,6}|\b(?:PSC|CMR|Unit) \d{1,5},? Box \d{1,5}|\bUS(?:S|NS|CGC"
    r"|NV) [A-Z]\w+(?=\s+[AFD]PO )"
    r"|\bPostfach \d{2,6}(?: \d{2,3})*|\b(?:Apartado|Casilla|Boîte postale|BP) \d{2,6}"
)
# A number and a name are an address if a unit or a postal code says so, or the words before do.
_NAME_ALONE = rf"\b{_NUMBER},? (?:\d{{1,5}} )?{_NAME}(?: {_WORD}){{0,4}}"
_BETWEEN_NUMBERS = (
    rf"\b{_NUMBER},? (?:[a-zß-öø-ÿ]{{1,4}}\. )?(?:{_WORD} ){{0,3}}{_NAME}(?: [a-zß-öø-ÿ]{{1,4}}\.)?,? {_NUMBER}\b"
)
_NAME_THEN_NUMBER = rf"\b{_NAME}(?: {_WORD}){{0,3}},? {_NUMBER}\b"
_CUE = re.compile(
    r"\b(?:liv(?:e|es|ing|ed)|resid(?:e|es|ing|ence|ed)|locat(?:ed|ion)|address(?:es)?|ship(?:ped|ping)?"
    r"|deliver(?:y|ed)?|mail(?:ed|ing)?"
    r"|mov(?:e|ed|ing)|stay(?:s|ing|ed)?|situated|billing|home|house|drop|pick|visit|met|meet|came|come|store"
    r"|shop|office|branch|apartment"
    r"|flat|hotel|restaurant|bank|atm|near|nearest|directions|distance|taxi|clinic|hospital|school"
    r"|headquarters|based|street|parcel)\b"
    r"(?:'s|,? [a-z]+){0,6}:?\s*$",
    re.IGNORECASE,
)
_CORNER = (
    r"\b(?:[Tt]he )?(?:[Cc]orner|[Ii]ntersection|[Jj]unction|[Cc]rossing) [Oo]f (?:[\w.'’-]+ ){1,6}?(?:[Aa]nd|&"
    r"|[Ww]ith|[Aa]t) "
    rf"{_WORD}(?: {_WORD}){{0,3}}"
)

_STREET = re.compile("|".join((_BOX, _CORNER, _NUMBER_FIRST, _TYPE_FIRST, _COMPOUND)))
_CANDIDATE = re.compile(f"{_BETWEEN_NUMBERS}|{_NAME_ALONE}|{_NAME_THEN_NUMBER}")
_PIECE = re.compile(
    r"(?P<gap>[ .]*(?:,[ \n>]*|\n[ >]*,?[ ]*|[ ]+(?:-[ ]+)?))"
    rf"(?:(?P<sure>{_UNIT}|(?:[AFD]PO )?(?:(?:{_STATE}"
    rf"|[a-z]{{2}}\b),? +)?{_POSTAL_CODE}(?: (?P<town>{_NAME}(?: {_NAME}){{0,2}}))?)"
    rf"|(?P<words>{_NAME}(?: (?:{_NAME}|{_LINK})){{0,3}}))"
)
_ENDS = re.compile(r"\s*(?:[,.;:)\]?!\"”]|$|\n|[-–] )")
_NOT_A_STREET = re.compile(
    r"(?:Google|Hard|Flash|Disk|Test|USB|Tape|One|C) Drive|Times Square$|Star (?:Court|Way)|One Way", re.IGNORECASE
)
_HAS_CAPITAL = re.compile(r"[^\W\d_a-zß-öø-ÿ]")


@cache
def load_countries() -> frozenset[str]:
    """Names of countries that may end an address, from Faker's list."""
    return frozenset(import_module("faker.providers.address.en").Provider.countries) | _MORE_COUNTRIES


_MORE_COUNTRIES = frozenset(
    ("United States", "USA", "U.S.A", "UK", "England", "Scotland", "Wales", "Northern Ireland", "Russia", "South Korea",
     "Turkey", "Türkiye", "Vietnam", "Iran", "Syria", "Taiwan", "Czechia", "Deutschland", "España", "Italia")
)  # fmt: skip


class Address(NamedTuple):
    """Where an address stands in the text."""

    start: int
    end: int


def capitalized(text: str) -> str:
    """`text` with every word capitalized, as long as before: what is typed without capitals gets its names back."""
    titled = text.title()
    return titled if len(titled) == len(text) else text


def _extended(text: str, end: int, numbered: bool, countries: frozenset[str]) -> tuple[int, bool]:
    """Where the address goes on to after its street, and whether there is a unit or code, or a country if"
    " `numbered`."""
    last, sure, plain = end, False, 0
    while (piece := _PIECE.match(text, end)) and plain < 4:
        end = piece.end()
        words = piece["words"]
        if piece["sure"]:
            last, sure = end, True
        elif words in countries:
            last, sure = end, sure or numbered
        elif "," in piece["gap"] and not plain and last == piece.start() and _ENDS.match(text, end):
            last, plain = end, 1  # a town right after the street
        else:
            plain += 1
    return last, sure


def _matches(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    for match in _STREET.finditer(text):
        if not _NOT_A_STREET.search(match[0]):
            yield match, True
    for match in _CANDIDATE.finditer(text):
        yield match, _CUE.search(text[max(0, match.start() - 50) : match.start()]) is not None


def find_addresses(text: str, countries: frozenset[str]) -> list[Address]:
    """Every street address in `text`, by position; `countries` are names that may end one."""
    if not _HAS_CAPITAL.search(text):
        text = capitalized(text)
    found: list[Address] = []
    for match, certain in _matches(text):
        if any(match.start() < other.end and other.start < match.end() for other in found):
            continue
        end, sure = _extended(text, match.end(), match[0][0].isdigit(), countries)
        if certain or sure:
            found.append(Address(match.start(), end))
    found.sort()
    return [one for place, one in enumerate(found) if not place or one.start >= found[place - 1].end]
