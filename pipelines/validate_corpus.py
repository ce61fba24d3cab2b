"""Stage `validate_corpus`: the corpus keeps its contract, or the run ends here with the rule, the count and examples.

In: `artifacts/prepare_corpus`, the evaluation sets (must not be in it). Out: `report.json`, `report.html`.
"""

from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Document
from pipelines.core.stage import open_stage
from pipelines.data.decontamination import decontamination_filter, evaluation_files, evaluation_texts
from pipelines.data.expectations import check, corpus_table
from pipelines.data.language import identify


def main() -> None:
    with open_stage("validate_corpus") as stage:
        params, evaluate = stage.params.prepare_corpus, stage.params.evaluate
        evaluation = evaluation_files(Path("evals/datasets"), *evaluate.data)
        table = corpus_table(
            map(Document.from_row, read_rows(artifacts.CORPUS_TRAIN)),
            map(Document.from_row, read_rows(artifacts.CORPUS_HELD_OUT)),
            params,
            stage.params.validate_corpus.min_documents,
            language_of=lambda text: identify(text).code,
            decontaminated=decontamination_filter(evaluation_texts(evaluation), params.decontamination_ngram),
        )
        try:
            metrics = check("Corpus", [table], stage.out)
        finally:  # a broken contract is what people want to see the report of
            stage.tracker.log_artifact(stage.out)
        stage.write_metrics(metrics)


if __name__ == "__main__":
    main()
