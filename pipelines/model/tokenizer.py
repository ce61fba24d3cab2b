"""The tokenizer: byte-level BPE of our own or a base model's, with one set of special tokens and one chat template."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipelines.core.errors import BadInput

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")

END_OF_TEXT = "<|endoftext|>"  # ends a document of the corpus, and pads
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"  # ends an answer
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # every byte has a token, so that any text can be written


def train_bpe(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer of at most `vocabulary` tokens; digits are single tokens.

    Raises:
        BadInput: `vocabulary` has no room for the bytes.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise BadInput(f"a vocabulary of {vocabulary} is too small; the bytes alone take {SMALLEST_VOCABULARY}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return adopt(PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False))


def adopt(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give `tokenizer` our special tokens and chat template; tokens that it lacks are added at its end.

    Padding is not the token that ends an answer: a loss that ignores padding would never teach to stop.
    """
    known = tokenizer.get_vocab()
    if missing := [token for token in SPECIAL_TOKENS if token not in known]:
        tokenizer.add_special_tokens({"additional_special_tokens": missing})
    tokenizer.add_special_tokens({"eos_token": TURN_END, "pad_token": END_OF_TEXT, "unk_token": END_OF_TEXT})
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": TURN_START})
    tokenizer.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def document_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token between two documents."""
    token = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    assert isinstance(token, int)
    return token


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The ids of each text; a special token that is spelled out in a text stays plain text."""
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False)
    return list(encoded["input_ids"])


class Compression(NamedTuple):
    """How a tokenizer packs a text."""

    bytes: int  # UTF-8
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(self.tokens, 1)


def compression(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Compression:
    """Bytes and tokens of `texts`."""
    tokens = sum(len(ids) for ids in encode_documents(tokenizer, texts))
    return Compression(sum(len(text.encode()) for text in texts), tokens)
