"""Disguises: what a reader sees is what the moderator reads, and ordinary text stays as it is."""

import pytest

from pipelines.model.disguise import undisguise


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("h o w  t o  k i l l", "how to kill"),
        ("k-i-l-l h-i-m", "kill him"),
        ("k\u200bi\u200bl\u200bl him", "kill him"),
        ("kіll thе mаn", "kill the man"),
        ("ｋｉｌｌ 𝐡𝐢𝐦", "kill him"),
        ("ⓚⓘⓛⓛ ʜɪᴍ", "kill him"),
        ("k1ll th3 b0ss at sch00l", "kill the boss at school"),
        ("p30pl3 5h0uld be @fr41d!", "people should be afraid!"),
        ("**k**i*ll* `him` ~~now~~", "kill him now"),
        ("# kill\n// him\n> now", "kill\nhim\nnow"),
        ("- kill\n- him\n2. now", "kill\nhim\nnow"),
        ("ki<b>ll</b> h<!-- x -->im", "kill him"),
        ("k̶i̶l̶l̶ him", "kill him"),
    ],
)
def test_disguises_are_undone(disguised: str, plain: str) -> None:
    assert undisguise(disguised).text == plain


@pytest.mark.parametrize(
    "text",
    [
        "An ordinary sentence, with commas; and a number: 1204.",
        "naïve café façade",
        "x = my_var_name + 10",
        "A B C D E F G",
        "It costs 3 euros in 2024.",
        "日本語のテキスト",
        "",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert undisguise(text) == (text, 0)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("h o w  t o  k i l l", 9),
        ("kіll him", 4),
        ("k\u200bi\u200bll him", 4),
        ("ｋｉｌｌ him", 4),
        ("Привет, мир", 0),
        ("👨\u200d👩\u200d👧 family", 0),
        ("**kill** k1ll", 0),
        ("*how* *to* *kill* *him*", 12),
    ],
)
def test_letters_are_counted_that_only_a_disguise_would_hide(text: str, letters: int) -> None:
    assert undisguise(text).hidden_letters == letters
