"""Reads a byte-level BPE in OpenAI's format, lines of `<base64 of a token's bytes> <rank>`, as GPT-2's comes."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.core.errors import BadInput
from pipelines.model.tokenizer import END_OF_TEXT


def merged_pair(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that training merged into `token`: what is left when no lower merge is."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in zip(parts, parts[1:], strict=False)]
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def read_ranks(path: Path) -> dict[bytes, int]:
    """Each token's rank.

    Raises:
        BadInput: a line has another form, or a byte has no token.
    """
    try:
        rows = [line.split() for line in path.read_bytes().splitlines()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in rows}
    except (ValueError, binascii.Error) as error:
        raise BadInput(f"{path} is no file of tokens and ranks: {error}; check where it comes from") from error
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise BadInput(f"{path} has no token for {len(missing)} of 256 bytes; check where it comes from")
    return ranks


def load_ranks(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of `path`, splitting text into words as GPT-2 does (Radford et al. 2019, section 2.2).

    Raises:
        BadInput: `path` holds something else.
    """
    ranks = read_ranks(path)
    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    merges = [(spelled(left), spelled(right)) for left, right in (merged_pair(token, ranks) for token in longer)]
    backend = Tokenizer(models.BPE({spelled(token): rank for token, rank in ranks.items()}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False)
