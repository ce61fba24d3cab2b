"""Turn the corpus into token shards.

In: `artifacts/prepare_corpus/{train,held_out}.jsonl.gz` and the tokenizer in `artifacts/train_tokenizer/`.
Out: `artifacts/tokenize_corpus/{train,held_out}.bin`, each document followed by the end token, and `manifest.json`.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.stage import open_stage
from pipelines.data.shards import ShardManifest, TokenizedDocument, token_dtype, write_shard
from pipelines.model.tokenizer import document_end, encode_documents

BATCH_DOCUMENTS = 64


def tokenized(path: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[TokenizedDocument]:
    """The documents of `path`, encoded a batch at a time."""
    texts = (row["text"] for row in read_rows(path))
    while batch := list(islice(texts, BATCH_DOCUMENTS)):
        for text, ids in zip(batch, encode_documents(tokenizer, batch), strict=True):
            yield TokenizedDocument(ids, len(text.encode()))


def main() -> None:
    with open_stage("tokenize_corpus") as stage:
        max_tokens = stage.params.tokenize_corpus.max_tokens
        # The class itself, not AutoTokenizer: that one imports torch.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(artifacts.TRAIN_TOKENIZER, local_files_only=True)
        vocabulary = len(tokenizer)
        end_token = document_end(tokenizer)
        train, held_out = (
            write_shard(path, tokenized(corpus, tokenizer), vocabulary, end_token, max_tokens)
            for corpus, path in (
                (artifacts.CORPUS_TRAIN, artifacts.TOKENS_TRAIN),
                (artifacts.CORPUS_HELD_OUT, artifacts.TOKENS_HELD_OUT),
            )
        )
        if not train.tokens or not held_out.tokens:
            raise BadInput(
                f"the corpus has {train.documents} training and {held_out.documents} held-out documents; "
                "both need some: raise ingest.max_documents or prepare_corpus.held_out_share"
            )
        manifest = ShardManifest(token_dtype(vocabulary).str, vocabulary, end_token, train, held_out)
        manifest.write(artifacts.TOKENS_MANIFEST)
        stage.write_metrics(
            {
                "train_tokens": train.tokens,
                "train_documents": train.documents,
                "held_out_tokens": held_out.tokens,
                "held_out_documents": held_out.documents,
                "bytes_per_token": train.bytes / train.tokens,
            }
        )


if __name__ == "__main__":
    main()
