"""Train the tokenizer on the corpus, or pass the base model's on with our chat template and special tokens.

In: `artifacts/prepare_corpus/`, and `artifacts/ingest/base_model/` unless base_model is scratch.
Out: `artifacts/train_tokenizer/` for `AutoTokenizer.from_pretrained`, with `report.json`: bytes per token on held-out
text, of a tokenizer trained on the corpus and of the one passed on.
"""

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows, write_json
from pipelines.core.stage import open_stage
from pipelines.model.tokenizer import SPECIAL_TOKENS, adopt, compression, train_bpe

REPORT = "report.json"
REPORT_MEGABYTES = 1.0  # of held-out text; the ratio is steady long before


def corpus_texts(path: Path, megabytes: float) -> Iterator[str]:
    """The texts of `path` up to `megabytes` of UTF-8, the first one always."""
    left = megabytes * 1e6
    for row in read_rows(path):
        yield row["text"]
        left -= len(row["text"].encode())
        if left <= 0:
            return


def describe(tokenizer: PreTrainedTokenizerBase, held_out: list[str]) -> dict[str, float]:
    """What the report says about one tokenizer."""
    packed = compression(tokenizer, held_out)
    return {
        "vocabulary": len(tokenizer),
        "bytes": packed.bytes,
        "tokens": packed.tokens,
        "bytes_per_token": packed.bytes_per_token,
    }


def base_tokenizer() -> PreTrainedTokenizerBase:
    """The base model's tokenizer with our special tokens and chat template."""
    from pipelines.model import checkpoints  # torch: seconds that a model from scratch does not need to wait for

    return adopt(checkpoints.load_base_tokenizer(checkpoints.find_base_model(artifacts.INGEST_BASE_MODEL)))


def main() -> None:
    with open_stage("train_tokenizer") as stage:
        params = stage.params.train_tokenizer
        held_out = list(corpus_texts(artifacts.CORPUS_HELD_OUT, REPORT_MEGABYTES))
        if not held_out:
            raise BadInput(f"{artifacts.CORPUS_HELD_OUT} is empty; raise prepare_corpus.held_out_share")
        trained = train_bpe(corpus_texts(artifacts.CORPUS_TRAIN, params.train_megabytes), params.vocabulary)
        report = {"trained": describe(trained, held_out)}
        scratch = stage.params.base_model.kind == "scratch"
        tokenizer = trained if scratch else base_tokenizer()
        if not scratch:
            report["base_model"] = describe(tokenizer, held_out)
        used = "trained" if scratch else "base_model"
        tokenizer.save_pretrained(stage.out)
        write_json(stage.out / REPORT, {"used": used, "special_tokens": list(SPECIAL_TOKENS), "held_out": report})
        for name, row in report.items():
            print(f"train_tokenizer: {name}: {row['bytes_per_token']:.3f} bytes per token, {row['vocabulary']} tokens")
        metrics = {f"{name}_{key}": value for name, row in report.items() for key, value in row.items()}
        stage.write_metrics(metrics | {"passed_through": float(not scratch)})


if __name__ == "__main__":
    main()
