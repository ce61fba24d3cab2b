"""The encoder classifier: it learns, the folder scores as the network does, and windows see all of a long text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from pipelines.core.errors import BadInput
from pipelines.core.sections.data import ModerationEncoder
from pipelines.data.labelled import Example
from pipelines.model.encoder_moderation import ENCODER_WEIGHT, EncoderModerator, windows_of
from pipelines.model.moderation import load_moderator
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator
from pipelines.training.encoder_classifier import (
    EncoderClassifier,
    batches,
    labels_of,
    masked_loss,
    padded,
    save_encoder,
    train_encoder,
)

WORDS = ["the", "a", "good", "bad", "cat", "dog", "is", "was", "very", "."]
CATEGORIES = ("hate", "violence")
PARAMS = ModerationEncoder(
    epochs=30.0,
    batch_texts=8,
    learning_rate=5e-3,
    train_tokens=16,
    window_characters=40,
    window_tokens=16,
    suspicious=0.1,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def examples() -> list[Example]:
    good = [Example(f"the {pet} is very good .", {}, "pattern") for pet in ("cat", "dog")]
    bad = [Example(f"the {pet} was bad .", {"hate": 1}, "pattern") for pet in ("cat", "dog")]
    return (good + bad) * 8


def screen(bias: float = 0.0) -> NGramModerator:
    shape = FeatureShape(hash_bits=8, shortest=3, longest=3, word_ngrams=1, word_weight=1.0)
    return NGramModerator(CATEGORIES, shape, np.zeros((2, 256), np.float32), np.full(2, bias, np.float32))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EncoderClassifier, EncoderModerator, Path]:
    folder = tmp_path_factory.mktemp("trained")
    model = train_encoder(base, examples(), CATEGORIES, PARAMS, seed=1)
    return model, save_encoder(model, screen(), base, PARAMS, folder), folder


def test_it_learns_what_it_is_shown(trained: tuple[EncoderClassifier, EncoderModerator, Path]) -> None:
    good, bad = trained[1].score(["the cat is very good .", "the dog was bad ."])
    assert good["hate"] < 0.3 and bad["hate"] > 0.7 and bad["violence"] < 0.3


def test_the_folder_scores_as_the_network_does(trained: tuple[EncoderClassifier, EncoderModerator, Path]) -> None:
    model, moderator, folder = trained
    texts = ["the cat is good .", "bad", "a very very very bad dog was the dog"]
    ids, mask = padded([moderator._tokenizer.encode(text).ids for text in texts])
    with torch.no_grad():
        expected = torch.sigmoid(ENCODER_WEIGHT * model(ids, mask)).numpy()  # the screen's logits are 0
    loaded = load_moderator(folder)
    found = np.array([[score[category] for category in CATEGORIES] for score in loaded.score(texts)])
    assert found == pytest.approx(expected, abs=0.02)
    assert loaded.version == moderator.version and loaded.categories == CATEGORIES


def test_the_encoder_reads_only_what_the_screen_finds_suspicious(
    trained: tuple[EncoderClassifier, EncoderModerator, Path], base: Path, tmp_path: Path
) -> None:
    calm = save_encoder(trained[0], screen(bias=-5.0), base, PARAMS, tmp_path)
    assert calm.score(["the dog was bad ."])[0]["hate"] == pytest.approx(1 / (1 + np.exp(5)))


def test_a_long_text_scores_as_its_worst_window(trained: tuple[EncoderClassifier, EncoderModerator, Path]) -> None:
    text = "the cat is very good . " * 20 + "the dog was bad . " * 2
    (score,) = trained[1].score([text])
    apart = trained[1].score(list(windows_of(text, PARAMS.window_characters)))
    assert len(apart) > 10
    assert score["hate"] == pytest.approx(max(each["hate"] for each in apart), abs=0.02)


@pytest.mark.parametrize("text", ["", "short", "word " * 100, "x" * 333, "one " + "y" * 90 + " two"])
def test_windows_cover_the_text_and_are_short(text: str) -> None:
    windows = list(windows_of(text, 40))
    assert max(map(len, windows)) <= 40
    assert text.startswith(windows[0]) and text.endswith(windows[-1])
    assert all(word in " ".join(windows) for word in text.split() if len(word) < 20)


def test_an_empty_text_and_no_text_have_scores(trained: tuple[EncoderClassifier, EncoderModerator, Path]) -> None:
    assert set(trained[1].score([""])[0]) == set(CATEGORIES)
    assert trained[1].score([]) == []


def test_batches_hold_every_text_once_and_similar_lengths() -> None:
    lengths = np.arange(100)
    found = list(batches(lengths, 8, np.random.default_rng(0)))
    assert sorted(np.concatenate(found).tolist()) == list(range(100))
    assert max(np.ptp(lengths[batch]) for batch in found) == 7


def test_what_is_not_known_costs_nothing() -> None:
    logits = torch.tensor([[0.0, 9.0]])
    loss = masked_loss(logits, torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(np.log(2))


def test_a_source_says_nothing_of_other_categories_when_its_comment_offends() -> None:
    rows = [Example("x", {"hate": 1}, "source"), Example("y", {"hate": 0}, "source"), Example("z", {}, "written")]
    targets, known = labels_of(rows, CATEGORIES)
    assert targets.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert known.tolist() == [[1, 0], [1, 1], [1, 1]]


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="moderation_base"):
        train_encoder(tmp_path, examples(), CATEGORIES, PARAMS, seed=1)
