"""Drops spam: pages of links, calls to action, contact baits, and texts stuffed with one keyword.

Every rule is a density, so that a manual that says "click here" once, or an article about spam, stays. Ntoulas et al.
2006 (Detecting spam web pages through content analysis) describes the signs.
"""

import re
from collections import Counter

from pipelines.core.records import Document
from pipelines.core.sections.data import SpamRules
from pipelines.data.steps import Filter, Verdict

# What asks the reader to buy, pay, sign up or click, in lower case; each is common in spam and rare elsewhere.
CALLS = (
    "act now", "add to cart", "apply now", "as seen on tv", "best deal", "best price",
    "book now", "buy cheap", "buy now", "buy online", "buy today", "call now", "call today", "cash bonus",
    "casino bonus", "cheap price", "claim your", "click below", "click here", "click the link", "contact us now",
    "contact us today", "discount code", "don't delete", "don't miss", "double your", "earn money", "extra income",
    "fast cash", "for free now", "free bonus", "free delivery", "free gift", "free quote", "free shipping",
    "free spins", "free trial", "get it now", "get paid", "get rich", "get started today", "guaranteed results",
    "hurry up", "income from home", "instant approval", "join now", "join us today", "limited offer", "limited stock",
    "limited time", "lowest price", "make money", "money back", "money-back", "no credit check", "no prescription",
    "no risk", "offer ends", "offer expires", "once in a lifetime", "online casino", "online pharmacy", "order now",
    "order online", "order today", "payday loan", "place your order", "promo code", "risk free", "risk-free",
    "satisfaction guaranteed", "save big", "shop now", "sign up now", "sign up today", "special offer",
    "special promotion", "subscribe now", "this offer", "today only", "try it now", "visit our website",
    "weight loss", "while stocks last", "while supplies last", "winning numbers", "work from home", "you have won",
    "you won't believe", "you've been selected", "100% free", "100% guaranteed", "100% legal", "100% satisfaction",
)  # fmt: skip
# What leads the reader to a stranger's messenger, wallet or shortened link, in lower case; with a space in front where
# it is the end of longer words: "context menu".
CONTACTS = (
    "add me on", "bit.ly/", "bitcoin address", "call or text", "call/text", "chat with me", "cutt.ly/", " dm me",
    " dm us", "drop me a dm", "email us at", "goo.gl/", "hit me up", "inbox me", "is.gd/", " kik:", "message me on",
    "my cashapp", "my telegram", "our telegram", "send me a dm", " t.me/", "//t.me/", "telegram:", "telegram channel",
    "telegram group", " text me", " text us at", "tinyurl.com/", "via telegram", "via whatsapp", "wa.me/", "wechat:",
    "whatsapp:", "whatsapp +", "whatsapp number", "whatsapp us", "wickr",
)  # fmt: skip
_LINK = re.compile(r"(?:https?://|\bwww\.)[^\s<>\"')\]]+")
_WORD = re.compile(r"[^\W\d_]+")
KEYWORD_LETTERS = 3  # at least; shorter words are grammar


def _by_words(phrases: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The whole words of each phrase: a text without one of them can't have the phrase, which is quickly seen."""
    return {phrase: frozenset(_WORD.findall(phrase)) for phrase in phrases}


_CALLS, _CONTACTS = _by_words(CALLS), _by_words(CONTACTS)


def link_share(text: str) -> float:
    """Characters of web addresses to all characters."""
    if "://" not in text and "www." not in text:
        return 0.0
    return sum(len(link) for link in _LINK.findall(text)) / len(text)


def keyword_share(words: Counter[str]) -> float:
    """Occurrences of the most frequent word of KEYWORD_LETTERS or more to those of all words."""
    most = max((count for word, count in words.items() if len(word) >= KEYWORD_LETTERS), default=0)
    return most / max(words.total(), 1)


def spam_reason(text: str, rules: SpamRules) -> str | None:
    """Which of `rules` the text breaks, None when it breaks none."""
    if link_share(text) > rules.max_link_share:
        return "too many links"
    lowered = text.lower()
    words = Counter(_WORD.findall(lowered))
    total = max(words.total(), 1)
    for reason, phrases, most in (
        ("calls to action", _CALLS, rules.max_calls_per_100_words),
        ("contact baits", _CONTACTS, rules.max_contacts_per_100_words),
    ):
        possible = [phrase for phrase, parts in phrases.items() if parts <= words.keys()]
        counts = [count for phrase in possible if (count := lowered.count(phrase))]
        if len(counts) >= rules.min_different_phrases and 100 * sum(counts) / total > most:
            return reason
    if total >= rules.keyword_min_words and keyword_share(words) > rules.max_keyword_share:
        return "one word too often"
    return None


def spam_filter(rules: SpamRules) -> Filter:
    """Keep documents that break none of `rules`."""

    def keep(document: Document) -> Verdict:
        reason = spam_reason(document.text, rules)
        return True if reason is None else (False, reason)

    return keep
