"""Duplicates and evaluation items: found when they are there, and only then."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.records import Document
from pipelines.data.decontamination import ItemIndex, decontamination_filter, evaluation_texts, texts_in
from pipelines.data.dedup import (
    PERMUTATIONS,
    Fingerprints,
    MinHash,
    choose_bands,
    exact_repeats,
    miss_probability,
    near_repeats,
)
from pipelines.data.ngrams import ngram_hashes, word_hashes, words
from pipelines.data.splits import is_held_out

VOCABULARY = [f"word{number}" for number in range(2000)]


def prose(seed: int, length: int = 300) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=length)


def document(text: str, name: str = "x") -> Document:
    return Document(id=name, text=text, source="s", license="MIT")


def test_words_ignore_case_and_punctuation() -> None:
    assert words("It's 3.5 – OK!") == ["it", "s", "3", "5", "ok"]


def test_ngram_hashes_are_equal_where_the_words_are() -> None:
    one, two = (ngram_hashes(word_hashes(text), 3) for text in ("a b c d e", "x b c d y"))
    assert len(one) == 3
    assert one[1] == two[1]
    assert one[0] != two[0] and one[2] != two[2]
    assert len(ngram_hashes(word_hashes("a b"), 3)) == 0


def test_the_same_words_in_another_order_hash_differently() -> None:
    assert ngram_hashes(word_hashes("a b c"), 3) != ngram_hashes(word_hashes("c b a"), 3)


def fingerprints(texts: list[str], place: Path, parts: int = 1) -> tuple[np.ndarray, list[np.ndarray]]:
    """Digests and signatures of `texts`, written and read in `parts` files as the stage does it."""
    digests, signatures = [], []
    for part in range(parts):
        collected = Fingerprints(seed=1)
        for text in texts[part * len(texts) // parts : (part + 1) * len(texts) // parts]:
            collected.add(text)
        collected.save(place / f"{part}.d.npy", place / f"{part}.s.npy")
        digests.append(np.load(place / f"{part}.d.npy"))
        signatures.append(np.load(place / f"{part}.s.npy", mmap_mode="r"))
    return np.concatenate(digests), signatures


def test_an_exact_repeat_is_found_whatever_its_layout(tmp_path: Path) -> None:
    texts = ["One  two.\nThree", "one two three!", "one two four", "ONE, two, three", ""]
    digests, _ = fingerprints(texts, tmp_path)
    assert exact_repeats(digests).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("parts", [1, 3])
def test_repeats_are_found_across_files(tmp_path: Path, parts: int) -> None:
    texts = [" ".join(prose(number % 5)) for number in range(9)]
    digests, signatures = fingerprints(texts, tmp_path, parts)
    repeats = [False] * 5 + [True] * 4
    assert exact_repeats(digests).tolist() == repeats
    assert near_repeats(signatures, 0.75).tolist() == repeats


def test_files_without_documents_are_no_trouble(tmp_path: Path) -> None:
    digests, signatures = fingerprints([], tmp_path, parts=2)
    assert exact_repeats(digests).tolist() == near_repeats(signatures, 0.75).tolist() == []


def test_signatures_estimate_the_jaccard_similarity() -> None:
    base = prose(1, 2000)
    changed = base[:1000] + prose(2, 1000)
    sets = [set(zip(*(text[shift:] for shift in range(5)), strict=False)) for text in (base, changed)]
    true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    minhash = MinHash(7)
    estimate = float(np.mean(minhash.signature(" ".join(base)) == minhash.signature(" ".join(changed))))
    assert abs(estimate - true) < 3 * (true * (1 - true) / PERMUTATIONS) ** 0.5


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.75, 0.9])
def test_bands_miss_next_to_nothing_at_the_threshold(similarity: float) -> None:
    bands = choose_bands(similarity)
    assert bands.number * bands.rows <= PERMUTATIONS
    assert miss_probability(similarity, bands) <= 0.02


def test_near_duplicates_are_found_and_different_texts_stay(tmp_path: Path) -> None:
    originals = [prose(number) for number in range(200)]
    edited = [[*text[:150], "inserted", *text[150:]] for text in originals]  # Jaccard about 0.97
    _, signatures = fingerprints([" ".join(text) for text in originals + edited], tmp_path)
    found = near_repeats(signatures, 0.75)
    assert not found[:200].any()
    assert found[200:].sum() >= 195


def test_very_short_texts_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    _, signatures = fingerprints(["one", "two words", "", "one"], tmp_path)
    assert near_repeats(signatures, 0.75).tolist() == [False, False, False, True]


ITEM = "Which of these planets has the most moons when those found by the year 2023 are counted in full?"
SHORT_ITEM = "Return the sum of the two smallest numbers"


def test_an_evaluation_item_is_found_inside_other_text() -> None:
    keep = decontamination_filter([ITEM, SHORT_ITEM], ngram=13)
    assert keep(document("Quiz night! " + ITEM.upper().replace(" ", "  ") + " Answers below.")) == (
        False,
        "shares 13 words with an evaluation item",
    )
    assert keep(document(f"Task: {SHORT_ITEM}; easy.")) is not True
    assert keep(document("Which of these planets has the most moons is a question that people ask.")) is True


def test_items_of_a_few_words_are_not_looked_for() -> None:
    assert not ItemIndex(["What is the capital of France?"], 13).occurs_in("What is the capital of France? Paris.")


def test_every_item_of_the_shipped_evaluations_is_found_when_planted() -> None:
    folder = Path(__file__).parents[3] / "evals" / "datasets"
    texts = [text for text in evaluation_texts(folder) if len(words(text)) >= 8]
    assert len(texts) > 50
    index = ItemIndex(texts, 13)
    assert all(index.occurs_in(f"Somebody wrote: {text} And so on.") for text in texts)
    assert not index.occurs_in(" ".join(prose(3, 5000)))


def test_texts_are_found_at_any_depth() -> None:
    assert list(texts_in(json.loads('{"a": "x", "b": [{"c": "y"}, 3, null]}'))) == ["x", "y"]


def test_the_split_is_a_function_of_id_and_seed_and_near_its_share() -> None:
    sides = [is_held_out(f"id{number}", 0.05, 1) for number in range(20_000)]
    assert sides == [is_held_out(f"id{number}", 0.05, 1) for number in range(20_000)]
    assert sides != [is_held_out(f"id{number}", 0.05, 2) for number in range(20_000)]
    assert abs(sum(sides) / len(sides) - 0.05) < 0.005
