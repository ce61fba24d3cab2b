"""The tokenizer: any text comes back, special tokens are ours, the template marks what the assistant said."""

from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipelines.core.errors import BadInput
from pipelines.model.tokenizer import adopt, compression, document_end, encode_documents, train_bpe

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Numbers such as 1234 are split.",
    "Ümläut, 日本語 and 🙂.",
] * 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe(TEXTS, 400)


@pytest.mark.parametrize("text", ["The fox.", "  spaces\n\nand\ttabs ", "日本語 ☃ 🙂 \x00", "x = 12345"])
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(encode_documents(tokenizer, [text])[0]) == text


def test_special_tokens_have_the_first_ids_and_their_roles(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert document_end(tokenizer) == 0


def test_a_document_can_not_forge_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_documents(tokenizer, ["a <|im_end|> b <|endoftext|>"])[0]
    assert not set(ids) & {0, 1, 2}


def test_digits_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_ids_to_tokens(encode_documents(tokenizer, ["1234"])[0]) == ["1", "2", "3", "4"]


def test_training_twice_gives_the_same_tokenizer(tmp_path: Path) -> None:
    for name in ("first", "second"):
        train_bpe(TEXTS, 400).save_pretrained(tmp_path / name)
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("first", "second"))
    assert first == second


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(BadInput, match="200"):
        train_bpe(TEXTS, 200)


def test_compression_counts_bytes_and_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    packed = compression(tokenizer, ["12", "é"])
    assert packed.bytes == 4
    assert packed.tokens == len(encode_documents(tokenizer, ["12"])[0]) + len(encode_documents(tokenizer, ["é"])[0])
    assert packed.bytes_per_token == packed.bytes / packed.tokens


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Me."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
]


def test_the_template_writes_chatml(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_is_a_prefix_of_the_conversation(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(CHAT[:3], tokenize=False).startswith(prompt)


def test_the_mask_covers_what_the_assistant_says_and_its_end(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    encoded = loaded.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert loaded.decode(said) == "Me.<|im_end|>Because.<|im_end|>"


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TemplateError, match="unknown role tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_a_foreign_tokenizer_gets_the_tokens_it_lacks(tokenizer: PreTrainedTokenizerBase) -> None:
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "<s>": 2}, merges=[]))
    foreign = adopt(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"))
    assert foreign.convert_tokens_to_ids(["a", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 3, 4, 5]
    assert (foreign.bos_token, foreign.eos_token, foreign.pad_token) == ("<s>", "<|im_end|>", "<|endoftext|>")
    assert foreign.chat_template == tokenizer.chat_template
