"""Duplicates and evaluation items: found when they are there, and only then."""

import csv
import gzip
import itertools
import json
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.config import load_params
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Document
from pipelines.data.decontamination import (
    MIN_WORDS,
    ItemIndex,
    decontamination_filter,
    evaluation_files,
    evaluation_texts,
    item_texts,
    texts_in,
)
from pipelines.data.dedup import (
    PERMUTATIONS,
    SHINGLE_WORDS,
    Fingerprints,
    exact_repeats,
    found_probability,
    near_repeats,
    signature,
)
from pipelines.data.evaluation_sets import data_files, evaluation_rows
from pipelines.data.ngrams import ngram_hashes, word_hashes, words
from pipelines.data.splits import is_held_out

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
SHIPPED = ROOT / "evals" / "datasets"
VOCABULARY = [f"word{number}" for number in range(2000)]


def prose(seed: int, length: int = 300) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=length)


def shipped_similarity() -> float:
    return load_params(ROOT / "params.yaml").prepare_corpus.near_duplicate_similarity


def document(text: str, name: str = "x") -> Document:
    return Document(id=name, text=text, source="s", license="MIT")


def test_words_ignore_case_and_punctuation() -> None:
    assert words("It's 3.5 – OK_then!") == ["it", "s", "3", "5", "ok", "then"]


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
    assert near_repeats(signatures, shipped_similarity()).tolist() == repeats


def test_files_without_documents_are_no_trouble(tmp_path: Path) -> None:
    digests, signatures = fingerprints([], tmp_path, parts=2)
    assert exact_repeats(digests).tolist() == near_repeats(signatures, shipped_similarity()).tolist() == []


def jaccard(one: list[str], other: list[str]) -> float:
    sets = [set(zip(*(text[shift:] for shift in range(SHINGLE_WORDS)), strict=False)) for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def estimate(one: str, other: str) -> float:
    return float(np.mean(signature(one, seed=7) == signature(other, seed=7)))


@pytest.mark.parametrize("shared", [100, 500, 1000, 1700, 1950])
def test_signatures_estimate_the_jaccard_similarity(shared: int) -> None:
    base = prose(1, 2000)
    changed = base[:shared] + prose(2, 2000 - shared)
    true = jaccard(base, changed)
    assert abs(estimate(" ".join(base), " ".join(changed)) - true) < 3 * (true * (1 - true) / PERMUTATIONS) ** 0.5


def test_a_signature_depends_on_the_seed_alone() -> None:
    text = " ".join(prose(1))
    assert (signature(text, 1) == signature(text, 1)).all()
    assert (signature(text, 1) != signature(text, 2)).mean() > 0.95


def test_a_tenth_of_the_words_changed_is_found_far_above_the_shipped_threshold() -> None:
    survives = 0.9**SHINGLE_WORDS
    similarity, threshold = survives / (2 - survives), shipped_similarity()
    assert found_probability(similarity) > 0.999
    assert found_probability(threshold) > 0.9
    assert similarity - threshold > 3.5 * (similarity * (1 - similarity) / PERMUTATIONS) ** 0.5


def test_near_duplicates_are_found_and_different_texts_stay(tmp_path: Path) -> None:
    originals = [prose(number) for number in range(200)]
    edited = [[*text[:150], "inserted", *text[150:]] for text in originals]  # Jaccard about 0.97
    _, signatures = fingerprints([" ".join(text) for text in originals + edited], tmp_path)
    found = near_repeats(signatures, shipped_similarity())
    assert not found[:200].any()
    assert found[200:].sum() >= 195


def test_very_short_texts_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    _, signatures = fingerprints(["one", "two words", "", "one"], tmp_path)
    assert near_repeats(signatures, shipped_similarity()).tolist() == [False, False, False, True]


def manuals() -> list[str]:
    """What the packages of this environment say of themselves: real prose of one kind, a text per package."""
    files = sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA"))
    texts = [file.read_text(encoding="utf-8").partition("\n\n")[2] for file in files]
    return [text for text in texts if len(words(text)) >= 50]


def web_pages() -> list[str]:
    path = SHARED / "c4_demo" / "c4_demo.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [text for text in texts if len(words(text)) >= 50]


def edited(text: str, share: float, others: list[str], draw: random.Random) -> str:
    """`text` with this share of its words replaced, left out or followed by a word, each as likely."""
    found = text.split()
    for place in draw.sample(range(len(found)), round(share * len(found))):
        found[place] = draw.choice(["", draw.choice(others), f"{found[place]} {draw.choice(others)}"])
    return " ".join(found)


@pytest.mark.parametrize("read", [manuals, web_pages])
def test_planted_edits_are_found_and_different_documents_are_not(
    read: Callable[[], list[str]], record_property: Callable[[str, object], None]
) -> None:
    texts, draw, threshold = read(), random.Random(11), shipped_similarity()
    assert len(texts) >= 150
    others = [word for text in texts for word in text.split()[:200]]
    signatures = np.stack([signature(text, seed=1) for text in texts])
    recall = {}
    for share in (0.05, 0.1, 0.2):
        copies = np.stack([signature(edited(text, share, others, draw), seed=1) for text in texts])
        recall[share] = float(near_repeats([signatures, copies], threshold)[len(texts) :].mean())
    pairs = draw.sample(list(itertools.combinations(signatures, 2)), 10_000)
    wrong = sum(float(np.mean(one == other)) >= threshold for one, other in pairs)
    right = recall[0.1] * len(texts)
    figures = {"recall": recall, "precision": right / (right + wrong), "pairs": len(pairs), "wrong": wrong}
    print(figures)
    record_property("figures", figures)
    assert recall[0.05] >= 0.95
    assert recall[0.1] >= 0.95
    assert right / (right + wrong) >= 0.95


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


def test_a_question_of_one_or_two_words_is_found_only_with_its_choices() -> None:
    row = {"question": "Inflation", "choices": ["raises prices for all", "lowers them for a few", "helps", "hurts"]}
    index = ItemIndex(item_texts(row), 13)
    assert not index.occurs_in("Inflation was high in those years. It hurts, they said, and helps nobody.")
    labelled = [f"{letter}) {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    assert index.occurs_in("Quiz. Inflation\n" + "\n".join(labelled))


def test_names_and_single_choices_are_not_looked_for() -> None:
    row = {
        "id": "high_school/dev/0",
        "subject": "high_school_physics",
        "question": "?",
        "choices": ["all of the above"],
    }
    assert list(item_texts(row)) == ["?"]


def test_a_row_of_numbers_is_no_evaluation_item() -> None:
    index = ItemIndex(["def f(): return [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]"], 13)
    assert not index.occurs_in("Figures: " + " ".join(map(str, range(1, 30))))


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "in a paragraph": lambda text: " ".join(text.split()),
    "in capitals": str.upper,
    "without punctuation": lambda text: re.sub(r"[^\w\s]|_", "", text),
    "with other punctuation": lambda text: re.sub(r"[^\w\s]|_", " – ", text),
    "on many lines": lambda text: re.sub(r"\s+", "\n\t ", text),
    "in a fence": lambda text: f"\n```python\n{text}\n```\n",
    "quoted": lambda text: "\n> " + text.replace("\n", "\n> "),
}


def planted(text: str, wrapping: str) -> str:
    return (
        f"We had a long talk about it, and then {WRAPPINGS[wrapping](text)} was what somebody had written down there."
    )


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_item_of_the_shipped_evaluations_is_found_when_planted(wrapping: str) -> None:
    rows = [row for path in evaluation_files(SHIPPED) for row in evaluation_rows(path)]
    questions = [str(row[name]) for row in rows for name in ("question", "prompt") if name in row]
    questions += [turn for row in rows for turn in row.get("turns", ())]
    assert len(questions) > 300
    index = ItemIndex(evaluation_texts(evaluation_files(SHIPPED)), 13)
    assert [text for text in questions if not index.occurs_in(planted(text, wrapping))] == []


def test_a_configured_file_is_looked_for_once_wherever_it_lies(tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.jsonl"
    elsewhere.write_text('{"question": "' + ITEM + '"}\n')
    files = evaluation_files(SHIPPED, str(SHIPPED / "knowledge.jsonl"), str(elsewhere))
    assert sorted(files) == sorted([*data_files(SHIPPED), elsewhere])
    assert ItemIndex(evaluation_texts(files), 13).occurs_in(planted(ITEM, "in capitals"))


def test_the_shipped_evaluations_drop_no_other_text() -> None:
    index = ItemIndex(evaluation_texts(evaluation_files(SHIPPED)), 13)
    assert [text[:80] for text in manuals() if index.occurs_in(text)] == []
    assert not index.occurs_in(" ".join(prose(3, 5000)))


def benchmark_rows() -> Iterator[dict[str, Any]]:
    for path in sorted((SHARED / "mmlu").glob("*/*.csv")):
        with path.open(encoding="utf-8", newline="") as lines:
            for question, *choices, answer in csv.reader(lines):
                yield {"question": question, "choices": choices, "answer": answer}
    yield from read_rows(SHARED / "gsm8k" / "test.jsonl")
    with gzip.open(SHARED / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.mark.skipif(not (SHARED / "mmlu").exists(), reason=f"{SHARED}/mmlu is not there")
def test_every_item_of_public_benchmarks_is_found_however_it_is_wrapped() -> None:
    rows = list(benchmark_rows())
    assert len(rows) > 12_000
    index = ItemIndex((text for row in rows for text in item_texts(row)), 13)
    missed, alone = [], 0
    for number, row in enumerate(rows):
        wrapping = sorted(WRAPPINGS)[number % len(WRAPPINGS)]
        text = row["question"] if "question" in row else row["prompt"]
        if len(words(text)) < MIN_WORDS or len(WRAPPINGS[wrapping](text).split()) < MIN_WORDS:
            alone += 1  # too short to be told from other text without its choices
            text = "\n".join([text, *(f"{letter}. {c}" for letter, c in zip("ABCD", row["choices"], strict=True))])
        if not index.occurs_in(planted(text, wrapping)):
            missed.append((wrapping, text))
    assert missed == []
    assert alone < 0.005 * len(rows)
    pages = web_pages()
    assert sum(index.occurs_in(page) for page in pages) <= 0.005 * len(pages)


def test_texts_are_found_at_any_depth() -> None:
    assert list(texts_in(json.loads('{"a": "x", "b": [{"c": "y"}, 3, null]}'))) == ["x", "y"]


def test_the_split_is_a_function_of_id_and_seed_and_near_its_share() -> None:
    sides = [is_held_out(f"id{number}", 0.05, 1) for number in range(20_000)]
    assert sides == [is_held_out(f"id{number}", 0.05, 1) for number in range(20_000)]
    assert sides != [is_held_out(f"id{number}", 0.05, 2) for number in range(20_000)]
    assert abs(sum(sides) / len(sides) - 0.05) < 0.005
