"""Stage `prepare_corpus`: raw documents become clean text; every drop is kept with its step and reason.

In: `artifacts/ingest`, the classifier of `artifacts/train_moderation`, `evals/datasets` (must not be in it).
Out: `train.jsonl.gz` and `held_out.jsonl.gz` (Document rows), `dropped.jsonl.gz` ({step, reason, document}),
`funnel.json` (documents and bytes per step and source), `funnel.svg`, and the data set card `card.md`.
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.config import PrepareCorpus
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, open_rows, read_json, read_rows, write_json
from pipelines.core.records import Document
from pipelines.core.stage import open_stage
from pipelines.data.corpus_report import card, funnel_svg
from pipelines.data.decontamination import decontamination_filter, evaluation_texts
from pipelines.data.dedup import exact_duplicate_filter, near_duplicate_filter
from pipelines.data.extraction import extract_html
from pipelines.data.filters import (
    line_shape_filter,
    stop_word_filter,
    symbol_filter,
    word_count_filter,
    word_shape_filter,
)
from pipelines.data.harm import Score, harm_filter
from pipelines.data.language import language_filter
from pipelines.data.markup import clean_markup
from pipelines.data.normalization import normalize
from pipelines.data.pii_analyzer import redactor
from pipelines.data.splits import is_held_out
from pipelines.data.steps import Dropped, Funnel, Step, filtering, run_steps, transforming
from pipelines.model.moderation import Moderator

EVALUATION_DATA = Path("evals/datasets")


def build_steps(params: PrepareCorpus, score: Score, evaluation_data: Path, seed: int) -> list[Step]:
    """The steps in their order: cheap ones and those that drop much come first."""
    return [
        transforming("extract_html", extract_html),
        transforming("clean_markup", clean_markup),
        transforming("normalize", normalize),
        filtering("word_count", word_count_filter(params.min_words, params.max_words)),
        filtering("language", language_filter(params.language, params.min_language_probability)),
        filtering("stop_words", stop_word_filter(params.min_stop_words)),
        filtering("symbols", symbol_filter(params.max_symbol_ratio)),
        filtering("word_shape", word_shape_filter),
        filtering("line_shape", line_shape_filter),
        filtering("exact_duplicates", exact_duplicate_filter()),
        filtering("near_duplicates", near_duplicate_filter(params.near_duplicate_similarity, seed)),
        filtering(
            "decontamination",
            decontamination_filter(evaluation_texts(evaluation_data), params.decontamination_ngram),
        ),
        filtering("harm", harm_filter(score, params.max_moderation_score)),
        transforming("redact_pii", redactor(params.pii_types)),
    ]


def read_documents(folder: Path) -> Iterator[Document]:
    """Every document that `ingest` wrote, source by source."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        for row in read_rows(path):
            yield Document.from_row(row)


def check_quarantine(manifest: Row, max_share: float) -> None:
    """Fail when too much of a source could not be read: the corpus would not be what its name says.

    Raises:
        BadInput: a source's quarantined share is above `max_share`.
    """
    for source in manifest["sources"]:
        share = source["quarantined"] / max(source["quarantined"] + source["rows"], 1)
        if source["use"] == "corpus" and share > max_share:
            raise BadInput(
                f"source {source['name']}: {source['quarantined']} of {source['quarantined'] + source['rows']} pieces "
                f"could not be read ({share:.1%}), prepare_corpus.max_quarantined_share allows {max_share:.1%}; "
                f"the reasons are in {artifacts.INGEST_QUARANTINED}"
            )


def main() -> None:
    with open_stage("prepare_corpus") as stage:
        params, seed = stage.params.prepare_corpus, stage.params.seed
        manifest = read_json(artifacts.INGEST_MANIFEST)
        check_quarantine(manifest, params.max_quarantined_share)
        moderator = Moderator.load(artifacts.TRAIN_MODERATION)
        steps = build_steps(params, moderator.score, EVALUATION_DATA, seed)
        funnel = Funnel(steps)

        # One pass; no document stays in memory longer than its own cleaning.
        kept = {split: {"documents": 0, "words": 0, "bytes": 0} for split in ("train", "held_out")}
        with (
            open_rows(artifacts.CORPUS_TRAIN) as write_train,
            open_rows(artifacts.CORPUS_HELD_OUT) as write_held_out,
            open_rows(artifacts.CORPUS_DROPPED) as write_dropped,
        ):
            for result in run_steps(read_documents(artifacts.INGEST_CORPUS), steps, funnel):
                if isinstance(result, Dropped):
                    write_dropped(result.to_row())
                    continue
                held_out = is_held_out(result.id, params.held_out_share, seed)
                (write_held_out if held_out else write_train)(result.to_row())
                size = kept["held_out" if held_out else "train"]
                size["documents"] += 1
                size["words"] += len(result.text.split())
                size["bytes"] += len(result.text.encode())

        rows = funnel.rows()
        for split, size in kept.items():
            if not size["documents"]:
                raise BadInput(
                    f"prepare_corpus left no document for the {split} split; look at the drops in "
                    f"{artifacts.CORPUS_DROPPED}, raise ingest's limits or change prepare_corpus.held_out_share"
                )
        write_json(artifacts.CORPUS_FUNNEL, {"steps": rows, "kept": kept})
        artifacts.CORPUS_FUNNEL_PLOT.write_text(funnel_svg(rows), encoding="utf-8")
        artifacts.CORPUS_CARD.write_text(card(manifest, rows, kept, params.model_dump()), encoding="utf-8")
        for path in (artifacts.CORPUS_CARD, artifacts.CORPUS_FUNNEL, artifacts.CORPUS_FUNNEL_PLOT):
            stage.tracker.log_artifact(path)
        read = sum(source["rows"] for source in manifest["sources"] if source["use"] == "corpus")
        stage.write_metrics(
            {f"{split}_{name}": float(value) for split, size in kept.items() for name, value in size.items()}
            | {
                "documents_read": float(read),
                "documents_dropped": float(read - sum(s["documents"] for s in kept.values())),
            }
        )


if __name__ == "__main__":
    main()
