"""Stage `validate_corpus`: the corpus keeps its contract, or the run ends here with the rule, the count and examples.

In: `artifacts/prepare_corpus`. Out: `report.json`, `report.html`.
"""

from pipelines.core import artifacts
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Document
from pipelines.core.stage import open_stage
from pipelines.data.expectations import check, corpus_table


def main() -> None:
    with open_stage("validate_corpus") as stage:
        table = corpus_table(
            map(Document.from_row, read_rows(artifacts.CORPUS_TRAIN)),
            map(Document.from_row, read_rows(artifacts.CORPUS_HELD_OUT)),
            min_documents=stage.params.validate_corpus.min_documents,
            min_words=stage.params.prepare_corpus.min_words,
            max_words=stage.params.prepare_corpus.max_words,
        )
        try:
            metrics = check("Corpus", [table], stage.out)
        finally:  # a broken contract is what people want to see the report of
            stage.tracker.log_artifact(stage.out)
        stage.write_metrics(metrics)


if __name__ == "__main__":
    main()
