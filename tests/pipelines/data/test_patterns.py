"""Patterns: slots are filled, groups keep their counts and labels, and a broken file is named."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import BadInput
from pipelines.data.labelled import CATEGORIES, Example, expanded_examples, in_company, misspelled
from pipelines.data.patterns import expand, fill
from pipelines.train_moderation import PATTERNS
from tests.workspaces import ROOT

LISTS = """
lists:
  ask: ["how do I {act}?"]
  harm: ["hurt a {who}"]
  safe: ["help a {who}"]
  who: [cat, dog, bird]
groups:
  - {name: harmful, count: 2, labels: [violence], with: {act: harm}, patterns: [ask]}
  - {name: harmless, count: 50, labels: [], with: {act: safe}, patterns: [ask]}
"""


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_slots_are_filled_at_every_depth() -> None:
    lists = {"a": ["<{b}>"], "b": ["c"]}
    assert fill("x {a} y {b}", lists, rng()) == "x <c> y c"


def test_groups_give_different_texts_up_to_their_count(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(LISTS)
    found = expand(tmp_path / "p.yaml", 1.0, rng())
    assert sorted(each.group for each in found) == ["harmful"] * 2 + ["harmless"] * 3
    assert len({each.text for each in found}) == 5
    assert all(each.text.startswith("How do I ") for each in found)
    assert {each.labels for each in found if each.group == "harmful"} == {frozenset({"violence"})}


@pytest.mark.parametrize("text", ["lists: {}", "lists: {a: ['{b}']}\ngroups: [{name: g, count: 1, labels: []}]"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"p\.yaml is no file of patterns"):
        expand(tmp_path / "p.yaml", 1.0, rng())


def test_an_unknown_category_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(LISTS.replace("[violence]", "[gossip]"))
    with pytest.raises(BadInput, match="gossip"):
        expanded_examples(tmp_path / "p.yaml", 1.0, rng())


def test_the_projects_patterns_are_complete_and_half_harmless() -> None:
    examples = expanded_examples(ROOT / PATTERNS, 0.2, rng())
    assert not [example.text for example in examples if "{" in example.text or "}" in example.text]
    assert 0.4 < sum(not example.labels for example in examples) / len(examples) < 0.6
    for category in CATEGORIES:
        assert sum(category in example.labels for example in examples) >= 10


def test_variants_keep_their_labels() -> None:
    example = Example("I will hurt the dog next week in the garden.", {"violence": 1}, "pattern")
    assert in_company(example, ["Hello."], rng()).text in (f"Hello. {example.text}", f"{example.text} Hello.")
    changed = misspelled(example, rng())
    assert changed.text != example.text and changed.labels == example.labels
