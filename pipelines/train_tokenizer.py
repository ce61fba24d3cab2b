"""Train the tokenizer on the corpus, or pass the base model's on with our chat template and special tokens.

In: `artifacts/prepare_corpus/`, and `artifacts/ingest/`: `base_model/` unless it is scratch, `gpt2_tokenizer/`.
Out: `artifacts/train_tokenizer/` for `AutoTokenizer.from_pretrained`, with `report.json` and `card.md`: bytes per token
on held-out text of a tokenizer trained on the corpus, of the base model's and of GPT-2's.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, read_rows, write_json
from pipelines.core.stage import open_stage
from pipelines.model.bpe_ranks import load_ranks
from pipelines.model.tokenizer import SPECIAL_TOKENS, adopt, compression, train_bpe

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


def gpt2_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """GPT-2's tokenizer as `ingest` left it in `folder`.

    Raises:
        BadInput: it is not at hand, and why.
    """
    origin = folder / "origin.json"
    if not origin.is_file():
        raise BadInput(f"{origin} is missing; run ingest again")
    if reason := read_json(origin)["not_at_hand"]:
        raise BadInput(reason)
    if files := sorted(folder.glob("*.tiktoken")):
        return load_ranks(files[0])
    from pipelines.model.checkpoints import BaseModel, load_base_tokenizer  # torch, as above

    return load_base_tokenizer(BaseModel(folder, None))


def card(rows: Mapping[str, Mapping[str, float]], missing: Mapping[str, str], used: str) -> str:
    """The tokenizers side by side, for people; `missing` says why one is not at hand."""
    lines = [
        "| tokenizer             | vocabulary | tokens of held-out text | bytes per token |",
        "|-----------------------|-----------:|------------------------:|----------------:|",
    ]
    for name, row in rows.items():
        label = f"{name} (used)" if name == used else name
        counts = f"{row['vocabulary']:>10,} | {row['tokens']:>23,}"
        lines.append(f"| {label:<21} | {counts} | {row['bytes_per_token']:>15.3f} |")
    lines += [f"| {name:<21} | not at hand: {reason.replace('|', '/')} | | |" for name, reason in missing.items()]
    return "\n".join((*lines, ""))


def main() -> None:
    with open_stage("train_tokenizer") as stage:
        params = stage.params.train_tokenizer
        held_out = list(corpus_texts(artifacts.CORPUS_HELD_OUT, REPORT_MEGABYTES))
        if not held_out:
            raise BadInput(f"{artifacts.CORPUS_HELD_OUT} is empty; raise prepare_corpus.held_out_share")
        trained = train_bpe(corpus_texts(artifacts.CORPUS_TRAIN, params.train_megabytes), params.vocabulary)
        report = {"trained": describe(trained, held_out)}
        missing: dict[str, str] = {}
        scratch = stage.params.base_model.kind == "scratch"
        tokenizer = trained if scratch else base_tokenizer()
        if not scratch:
            report["base_model"] = describe(tokenizer, held_out)
        try:
            report["gpt2"] = describe(gpt2_tokenizer(artifacts.INGEST_GPT2_TOKENIZER), held_out)
        except BadInput as error:  # only the report misses it
            missing["gpt2"] = str(error)
        used = "trained" if scratch else "base_model"
        tokenizer.save_pretrained(stage.out)
        write_json(
            artifacts.TOKENIZER_REPORT,
            {"used": used, "special_tokens": list(SPECIAL_TOKENS), "held_out": report, "not_at_hand": missing},
        )
        artifacts.TOKENIZER_CARD.write_text(card(report, missing, used), encoding="utf-8")
        stage.tracker.log_artifact(artifacts.TOKENIZER_CARD)
        print(card(report, missing, used), end="")
        metrics = {f"{name}_{key}": value for name, row in report.items() for key, value in row.items()}
        stage.write_metrics(metrics | {"passed_through": float(not scratch)})


if __name__ == "__main__":
    main()
