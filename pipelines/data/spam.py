"""Drops spam: pages of links, calls to action, contact baits, and texts stuffed with one keyword.

Every rule is a density, so that a manual that says "click here" once, or an article about spam, stays. Ntoulas et al.
2006 (Detecting spam web pages through content analysis) describes the signs.
"""

import re
from collections import Counter

from pipelines.core.config import SpamRules
from pipelines.core.records import Document
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
_KEYWORD = re.compile(r"[^\W\d_]{4,}")  # shorter words are mostly grammar
# Longer words of grammar, which lead every honest text.
_GRAMMAR = frozenset(
    (
        "about", "after", "also", "because", "been", "before", "being", "both", "could", "does", "each", "every",
        "from", "have", "here", "into", "just", "like", "made", "make", "many", "more", "most", "much", "must", "only",
        "other", "over", "same", "should", "some", "such", "than", "that", "their", "them", "then", "there", "these",
        "they", "this", "those", "used", "using", "very", "want", "were", "what", "when", "where", "which", "while",
        "will", "with", "would", "your",
    )
)  # fmt: skip


def link_share(text: str) -> float:
    """Characters of web addresses to all characters."""
    if "://" not in text and "www." not in text:
        return 0.0
    return sum(len(link) for link in _LINK.findall(text)) / len(text)


def phrase_counts(lowered: str, phrases: tuple[str, ...]) -> list[int]:
    """How often each of `phrases` that occurs at all stands in a text in lower case."""
    return [lowered.count(phrase) for phrase in phrases if phrase in lowered]


def keyword_share(lowered: str, words: int) -> float:
    """Occurrences of the most frequent word that is no grammar, to all words of a text in lower case."""
    counts = Counter(_KEYWORD.findall(lowered))
    return max((count for word, count in counts.items() if word not in _GRAMMAR), default=0) / max(words, 1)


def spam_reason(text: str, rules: SpamRules) -> str | None:
    """Which of `rules` the text breaks, None when it breaks none."""
    lowered, words = text.lower(), max(len(text.split()), 1)
    if link_share(text) > rules.max_link_share:
        return "too many links"
    for reason, phrases, most in (
        ("calls to action", CALLS, rules.max_calls_per_100_words),
        ("contact baits", CONTACTS, rules.max_contacts_per_100_words),
    ):
        counts = phrase_counts(lowered, phrases)
        if len(counts) >= rules.min_different_phrases and 100 * sum(counts) / words > most:
            return reason
    if words >= rules.keyword_min_words and keyword_share(lowered, words) > rules.max_keyword_share:
        return "one word too often"
    return None


def spam_filter(rules: SpamRules) -> Filter:
    """Keep documents that break none of `rules`."""

    def keep(document: Document) -> Verdict:
        reason = spam_reason(document.text, rules)
        return True if reason is None else (False, reason)

    return keep
