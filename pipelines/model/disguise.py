"""Undoes the disguises that hide a text from a moderator: look-alike letters, invisible characters, spaced-out letters,
leetspeak, and markup inside words.

Out of reach: encodings (base64, ROT13, text written backwards), other languages, spaces at random places in words.
"""

import re
import unicodedata
from collections import Counter
from typing import NamedTuple

# Letters of other scripts that look like Latin ones and that NFKC keeps (after Unicode's confusables, UTS #39).
_LOOK_ALIKES = str.maketrans(
    {
        **dict(zip("асеорхуіјѕԁһԛԝӏкмнтвгпьѵ", "aceopxyijsdhqwlkmhtbrnbv", strict=True)),
        **dict(zip("АВЕКМНОРСТУХІЈЅԚԜ", "ABEKMHOPCTYXIJSQW", strict=True)),
        **dict(zip("αβγεηικνορτυχωϲ", "abyenikvoptuxwc", strict=True)),
        **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX", strict=True)),
        **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True)),
        **dict(zip("ɑɡıɩℓօսոհ", "agiilouNh".lower(), strict=True)),
        **{chr(base + at): chr(ord("a") + at) for base in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6) for at in range(26)},
    }
)
_LEET = str.maketrans("43105$7@!8", "aeiosstaib")
_LEET_WORD = re.compile(
    r"(?<![\w@$])(?=[^\s_]*[a-zA-Z][^\s_]*[a-zA-Z])(?=[a-zA-Z]*[013457@$!])(?:[a-zA-Z013457@$]|!(?=[a-zA-Z]))+(?![\w@$])"
)
# Four single letters or more with short gaps between them; the usual gap stands between letters, others part words.
_GAP = re.compile(r"[\s._*/|,~\u00b7\u2022-]+")
_SPACED = re.compile(rf"(?<![^\W_])[^\W\d_](?:{_GAP.pattern[:-1]}{{1,4}}[^\W\d_](?![^\W_])){{3,}}")
_MARKS = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]{0,80}>|[*`~\\]+|(?<![^\W_])_+|_+(?![^\W_])|\|\|", re.DOTALL)
_LINE_MARKS = re.compile(r"^[ \t]*(?:#+|//+|>+|--|;+|%+|[-*+\u2022](?=\s)|\d{1,3}[.)](?=\s))[ \t]*", re.MULTILINE)
# Four words or more that are each set off by marks.
_MARKED_WORDS = re.compile(r"(?:(?:[*_`~]{1,3}|<\w+>)[\w'-]+(?:[*_`~]{1,3}|</\w+>)[^\w*_`~<]{0,3}){4,}")
_WORD = re.compile(r"\S+")
_SCRIPTS = ("CYRILLIC", "GREEK", "ARMENIAN")


class Plain(NamedTuple):
    """A text without disguise, and how many of its letters were hidden by characters that have no other use."""

    text: str
    hidden_letters: int


def undisguise(text: str) -> Plain:
    """`text` as a reader sees it. Its words keep their order; letters keep their case; markup is gone."""
    hidden = 0
    if not text.isascii():
        hidden = sum(_hidden(word) for word in _WORD.findall(text))
        text = _visible(unicodedata.normalize("NFKC", text.translate(_LOOK_ALIKES)))
    hidden += sum(char.isalpha() for run in _MARKED_WORDS.findall(text) for char in run)
    text = _MARKS.sub("", _LINE_MARKS.sub("", text))
    text, spaced = _joined(text)
    text = _LEET_WORD.sub(lambda word: word[0].translate(_LEET), text)
    return Plain(text, hidden + spaced)


def _visible(text: str) -> str:
    """`text` without format characters (Cf), variation selectors and piled-up accents (Mn)."""
    return "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Mn"))


def _hidden(word: str) -> int:
    """Letters of a Latin word that holds invisible characters, look-alikes or letters of odd alphabets."""
    if word.isascii():
        return 0
    latin = sum(char.isascii() and char.isalpha() for char in word)
    foreign = odd = 0
    for char in word:
        if not char.isascii() and _plain_letter(char):
            if unicodedata.name(char, "").startswith(_SCRIPTS):
                foreign += 1
            else:
                odd += 1
    inside = any(unicodedata.category(char) == "Cf" for char in word[1:-1])
    # A word in one other script, such as Russian, has no Latin letters of its own.
    return latin + foreign + odd if odd or (latin and foreign) or (latin > 1 and inside) else 0


def _plain_letter(char: str) -> bool:
    plain = unicodedata.normalize("NFKC", char.translate(_LOOK_ALIKES))
    return len(plain) == 1 and plain.isascii() and plain.isalpha()


def _joined(text: str) -> tuple[str, int]:
    """`text` with spaced-out words put together, and how many letters those had, an alphabet in order excepted."""
    count = 0

    def join(run: re.Match[str]) -> str:
        nonlocal count
        gaps = _GAP.findall(run[0])
        letters = _GAP.sub("", run[0])
        if list(letters.lower()) == sorted(letters.lower()):
            return run[0]
        count += len(letters)
        usual = Counter(gaps).most_common(1)[0][0]
        return letters[0] + "".join(
            letter if gap == usual else f" {letter}" for gap, letter in zip(gaps, letters[1:], strict=True)
        )

    return _SPACED.sub(join, text), count
