"""Digits, numbers and dates in one form where the value is beyond doubt; what could be read two ways stays as it is.

Changed: decimal digits of other scripts, separators of groups and decimals that only numbers have, minus signs, ISO
dates with other dashes. Not changed: 03/04/2021, 1,234 or 1.234, dashes of ranges, 2021.03.04 (a version), ² and ½.
"""

import re
import unicodedata

# Digits of every script but the bold and double-struck ones of mathematics, which mean something else than plain ones.
_DIGITS = {
    code: str(unicodedata.decimal(chr(code)))
    for code in range(0x80, 0x20000)
    if unicodedata.category(chr(code)) == "Nd" and not 0x1D7CE <= code <= 0x1D7FF
}
_DASHES = "\u2010-\u2015\u2212\ufe63\uff0d"
_FOREIGN_DIGIT = re.compile(f"[{''.join(map(chr, _DIGITS))}]")
# Between digits these have one meaning. Arabic separators, full-width forms, the ratio sign as a colon.
_BETWEEN_DIGITS = {
    "\u066b": ".",
    "\u066c": "",
    "\uff0e": ".",
    "\uff0c": ",",
    "\uff0f": "/",
    "\uff1a": ":",
    "\u2236": ":",
}
_BETWEEN = re.compile(f"(?<=[0-9])[{''.join(_BETWEEN_DIGITS)}](?=[0-9])")
# Groups of three after a thin, narrow no-break or figure space, which the SI has for this; a no-break space also stands
# between "take 1" and "200 mg", so that it counts from two groups on. The same space all through, nothing glued on.
_GROUPS = re.compile(
    rf"(?<![\w.,:/+)\-{_DASHES}])(?<![0-9)][ \u00a0\u2007\u2009\u202f])[1-9][0-9]{{0,2}}"
    r"(?:([\u2007\u2009\u202f])[0-9]{3}(?:\1[0-9]{3})*|(\u00a0)[0-9]{3}(?:\2[0-9]{3})+)"
    rf"(?![\w/:\-{_DASHES}]|[ \u00a0\u2007\u2009\u202f][0-9(]|[.,][0-9]{{3}}\b)"
)
_GROUP_SPACE = re.compile("[\u00a0\u2007\u2009\u202f]")
# A sign in front of a number; between two terms a minus sign stays, where a hyphen would look like a range.
_SIGN = re.compile(r"(?<![\w)\]}\u2212])(?<![0-9)\]}] )[\u2212\ufe63\uff0d](?=\.?[0-9])")
# Year, month, day with the same dash; of a range of years the last part would be no day.
_DATE = re.compile(
    rf"(?<![\w/.\-{_DASHES}])((?:1[5-9]|20)[0-9]{{2}})([\u2010-\u2013\u2212\ufe63\uff0d])(0[1-9]|1[0-2])\2"
    rf"(0[1-9]|[12][0-9]|3[01])(?![\w/\-{_DASHES}])"
)
_DIGIT_CHARACTERS = frozenset(map(chr, _DIGITS))
_DATE_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d")
_SPACES = frozenset("\u00a0\u2007\u2009\u202f")
_SIGNS = frozenset("\u2212\ufe63\uff0d")
_LOOKED_AT = _DIGIT_CHARACTERS | _BETWEEN_DIGITS.keys() | _DATE_DASHES | _SPACES


def normalize_numbers(text: str) -> str:
    """`text` with plain digits, signs and separators; the spaces of other characters must still be told apart in it."""
    # Each pattern costs far more than this look at the characters, and most texts have none of them.
    if text.isascii() or not (there := _LOOKED_AT.intersection(text)):
        return text
    if there & _DIGIT_CHARACTERS:
        text = _FOREIGN_DIGIT.sub(lambda found: _DIGITS[ord(found[0])], text)
    if there & _BETWEEN_DIGITS.keys():
        text = _BETWEEN.sub(lambda found: _BETWEEN_DIGITS[found[0]], text)
    if there & _DATE_DASHES:
        text = _DATE.sub(r"\1-\3-\4", text)
    if there & _SPACES:
        text = _GROUPS.sub(lambda found: _GROUP_SPACE.sub("", found[0]), text)
    return _SIGN.sub("-", text) if there & _SIGNS else text
