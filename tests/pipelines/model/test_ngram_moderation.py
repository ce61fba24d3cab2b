"""The n-gram classifier's library: features that don't depend on spelling tricks, scores that survive the disk."""

import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.model.moderation import load_moderator
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator, character_hashes, normalize, word_hashes

SHAPE = FeatureShape(hash_bits=12, shortest=3, longest=5, word_ngrams=2, word_weight=4.0)


def moderator(seed: int = 0) -> NGramModerator:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(2, 1 << SHAPE.hash_bits)).astype(np.float32)
    return NGramModerator(("harassment", "violence"), SHAPE, weights, np.array([-0.5, 0.5], np.float32))


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("KILL", "kill"),
        ("ki\u200bll", "kill"),
        ("ｋｉｌｌ", "kill"),
        ("  a \n\t b ", "a b"),
        ("nooooo", "noo"),
        ("", ""),
    ],
)
def test_disguises_are_undone(disguised: str, plain: str) -> None:
    assert normalize(disguised) == plain


def test_there_is_one_hash_per_ngram() -> None:
    assert len(character_hashes("abcdef", 3, 5)) == 4 + 3 + 2
    assert len(character_hashes("ab", 3, 5)) == 0
    assert len(word_hashes("one two three", 2)) == 3 + 2
    assert len(word_hashes("...", 2)) == 0


def test_equal_ngrams_have_equal_hashes_wherever_they_stand() -> None:
    first, second = character_hashes("abcxyz", 3, 3), character_hashes("--abc", 3, 3)
    assert first[0] == second[2]
    assert len(set(first.tolist())) == 4


@pytest.mark.parametrize("text", ["hello there", "é 日本語 🙂", "a" * 5000, "\ud800 lone surrogate", "x"])
def test_features_are_unit_vectors_with_sorted_distinct_indices(text: str) -> None:
    indices, values = SHAPE.of(text)
    assert np.all(np.diff(indices) > 0) and indices.min() >= 0 and indices.max() < 1 << SHAPE.hash_bits
    assert np.linalg.norm(values) == pytest.approx(1, abs=1e-5)


def test_a_text_of_nothing_scores_the_bias() -> None:
    scores = moderator().score(["", "   "])
    assert scores[0] == scores[1] == pytest.approx({"harassment": 0.3775, "violence": 0.6225}, abs=1e-4)


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    original = moderator()
    original.save(tmp_path)
    loaded = load_moderator(tmp_path)
    texts = ["You are kind.", "Ümläute and 日本"]
    assert loaded.score(texts) == original.score(texts)
    assert loaded.categories == original.categories
    assert loaded.version == original.version == read_json(tmp_path / "config.json")["version"]


def test_the_folder_holds_tensors_and_json_only(tmp_path: Path) -> None:
    moderator().save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert load_file(tmp_path / "model.safetensors")["weights"].shape == (2, 1 << SHAPE.hash_bits)


def test_other_weights_are_another_version() -> None:
    assert moderator(0).version != moderator(1).version


def test_a_text_scores_the_same_alone_and_in_company() -> None:
    texts = ["first text", "a second, longer text", "third"]
    assert moderator().score(texts) == [moderator().score([text])[0] for text in texts]


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load_moderator(tmp_path)
    write_json(tmp_path / "config.json", {"format": 99})
    with pytest.raises(BadInput, match="format 99"):
        load_moderator(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    moderator().save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model\.safetensors does not exist"):
        load_moderator(tmp_path)


def test_a_message_takes_at_most_ten_milliseconds() -> None:
    judge = moderator()
    texts = ["An ordinary message with some forty words in it. " * 5] * 20
    judge.score(texts)
    started = time.process_time()
    judge.score(texts)
    assert (time.process_time() - started) / len(texts) < 0.010
