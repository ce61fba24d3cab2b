"""Turn the corpus into token shards.

In: `artifacts/prepare_corpus/{train,held_out}.jsonl.gz` and the tokenizer in `artifacts/train_tokenizer/`.
Out: `artifacts/tokenize_corpus/{train,held_out}-<number>.bin`, each document followed by the end token, the card
`card.md` (documents, tokens and bytes of each split and source), and `manifest.json`.

Shards are written under `.run/work` and moved when all are there, so that a killed stage goes on after the last
complete one.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipelines.core import artifacts
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.records import content_id
from pipelines.core.sections.data import TokenizeCorpus
from pipelines.core.stage import open_stage
from pipelines.data.shards import ShardManifest, Split, TokenizedDocument, token_dtype, write_split
from pipelines.model.tokenizer import document_end, encode_documents

WORK = artifacts.RUN / "work" / "tokenize_corpus"
BATCH_DOCUMENTS = 64


def tokenized(path: Path, tokenizer: PreTrainedTokenizerBase, skip: int) -> Iterator[TokenizedDocument]:
    """The documents of `path` without the first `skip`, encoded a batch at a time."""
    rows = islice(read_rows(path), skip, None)
    while batch := list(islice(rows, BATCH_DOCUMENTS)):
        for row, ids in zip(batch, encode_documents(tokenizer, [row["text"] for row in batch]), strict=True):
            yield TokenizedDocument(ids, len(row["text"].encode()), row["source"])


def card(manifest: ShardManifest) -> str:
    """What the shards hold, in Markdown: by split, and in each split by source."""
    lines = ["# Tokens", "", f"A vocabulary of {manifest.vocabulary:,}; ids are stored as `{manifest.dtype}`.", ""]
    lines += [
        "| split | source | shards | documents | tokens | bytes | bytes a token |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, split in (("train", manifest.train), ("held_out", manifest.held_out)):
        whole = {"documents": split.documents, "tokens": split.tokens, "bytes": split.bytes}
        for source, size in {"all": whole, **split.sources}.items():
            counts = f"{size['documents']:,} | {size['tokens']:,} | {size['bytes']:,}"
            shards = len(split.shards) if size is whole else ""
            lines.append(f"| {name} | {source} | {shards} | {counts} | {size['bytes'] / size['tokens']:.2f} |")
    return "\n".join((*lines, ""))


def work_folder(params: TokenizeCorpus) -> Path:
    """The folder for shards until all are complete: one for each input, and no other stays."""
    inputs = [artifacts.CORPUS_TRAIN, artifacts.CORPUS_HELD_OUT, *sorted(artifacts.TRAIN_TOKENIZER.iterdir())]
    hashes = [[path.name, file_sha256(path)] for path in inputs if path.is_file()]
    work = WORK / content_id([hashes, params.model_dump()])
    for other in set(WORK.glob("*")) - {work}:
        shutil.rmtree(other)
    work.mkdir(parents=True, exist_ok=True)
    return work


def move(work: Path, split: Split, out: Path) -> None:
    """Put the shards of `split` into the stage's folder."""
    out.mkdir(parents=True, exist_ok=True)
    for shard in split.shards:
        shutil.move(work / shard.file, out / shard.file)


def main() -> None:
    with open_stage("tokenize_corpus") as stage:
        params = stage.params.tokenize_corpus
        # The class itself, not AutoTokenizer: that one imports torch.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(artifacts.TRAIN_TOKENIZER, local_files_only=True)
        vocabulary = len(tokenizer)
        end_token = document_end(tokenizer)
        work = work_folder(params)
        train, held_out = (
            write_split(
                work,
                split,
                partial(tokenized, corpus, tokenizer),
                vocabulary,
                end_token,
                params.max_tokens,
                params.shard_tokens,
            )
            for split, corpus in (("train", artifacts.CORPUS_TRAIN), ("held_out", artifacts.CORPUS_HELD_OUT))
        )
        if not train.tokens or not held_out.tokens:
            raise BadInput(
                f"the corpus has {train.documents} training and {held_out.documents} held-out documents; "
                "both need some: raise ingest.max_documents or prepare_corpus.held_out_share"
            )
        for split in (train, held_out):
            move(work, split, stage.out)
        manifest = ShardManifest(token_dtype(vocabulary).str, vocabulary, end_token, train, held_out)
        artifacts.TOKENS_CARD.write_text(card(manifest), encoding="utf-8")
        stage.tracker.log_artifact(artifacts.TOKENS_CARD)
        manifest.write(artifacts.TOKENS_MANIFEST)
        stage.write_metrics(
            {
                "train_tokens": train.tokens,
                "train_documents": train.documents,
                "train_shards": len(train.shards),
                "held_out_tokens": held_out.tokens,
                "held_out_documents": held_out.documents,
                "bytes_per_token": train.bytes / train.tokens,
            }
        )
        shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
