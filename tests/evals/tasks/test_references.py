"""Scores beside a reference: equal answers score 1, others less; without an encoder BERTScore is unscored."""

from pathlib import Path

import pytest
from transformers import BertConfig, BertModel, BertTokenizerFast

from evals.task import summarize
from evals.tasks.chat_quality import Voice
from evals.tasks.references import References, bert_scores, shared_words
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows
from tests.evals.scripted import ScriptedEngine

pytest.importorskip("sacrebleu")
pytest.importorskip("rouge_score")
REFERENCE = "The cat sat on the mat and looked at the dog."


def test_equal_answers_score_one_and_others_less() -> None:
    same, near, empty = shared_words([REFERENCE, "A cat sat on the mat.", ""], [REFERENCE] * 3)
    assert {round(score.value, 6) for score in same.values()} == {1.0}
    assert all(0 < near[name].value < 1 for name in near)
    assert {score.value for score in empty.values()} == {0.0}


def test_rouge_is_the_share_of_common_words() -> None:
    [scores] = shared_words(["the cat ran"], ["the cat sat"])
    assert scores["rouge1"].value == pytest.approx(2 / 3)
    assert scores["rouge2"].value == pytest.approx(1 / 2)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["the", "cat", "sat", "on", "mat", "dog", "ran", "home"]]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"), model_max_length=32).save_pretrained(tmp_path)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(tmp_path)
    return tmp_path


def test_bertscore_by_a_local_encoder(encoder: Path) -> None:
    pytest.importorskip("bert_score")
    same, other = bert_scores(["the cat sat", "dog"], ["the cat sat"] * 2, encoder, layer=2)
    assert same.value == pytest.approx(1.0, abs=1e-4)
    assert other.value < same.value


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bertscore_model: .* holds no encoder"):
        bert_scores(["a"], ["a"], tmp_path, layer=1)


def test_the_last_answer_is_the_reference(tmp_path: Path, tiny_model: Path) -> None:
    turns = [{"role": "user", "content": "What did the cat do?"}, {"role": "assistant", "content": REFERENCE}]
    row = {"id": "d", "messages": turns, "category": "chat", "source": "test", "license": "none"}
    write_rows(tmp_path / "d.jsonl", [row])
    task = References(tmp_path / "d.jsonl", 5, 16, Voice("", 0.7, 0.9, 1), None, 1)
    engine = ScriptedEngine(tiny_model, [REFERENCE])
    [result] = results = task.run(engine)
    assert engine.rendered == [[turns[0]]]
    assert result.scores["rougeL"].value == 1.0
    found = summarize(results, task.metrics, 0.05, 1)["bertscore"]
    assert (found["n"], found["reason"]) == (0, "evaluate.bertscore_model names no encoder")
