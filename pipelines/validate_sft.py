"""Stage `validate_sft`: demonstrations and prompts keep their contract, or the run ends with rule, count and examples.

In: `artifacts/prepare_sft`, the tokenizer of `artifacts/train_tokenizer` (lengths are counted in its tokens).
Out: `report.json`, `report.html`.
"""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows
from pipelines.core.records import Conversation
from pipelines.core.stage import open_stage
from pipelines.data.expectations import check, conversation_rows, demonstration_table, prompt_table


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of one split."""
    return map(Conversation.from_row, read_rows(path))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer without transformers, whose import takes seconds.

    Raises:
        BadInput: the folder has none.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadInput(f"{path} does not exist; run train_tokenizer")
    return Tokenizer.from_file(str(path))


def with_tokens(rows: list[Row], tokenizer: Tokenizer) -> list[Row]:
    """Rows with the number of tokens of their text; the chat template adds some three a turn to it."""
    encoded = tokenizer.encode_batch_fast([row["text"] for row in rows], add_special_tokens=False)
    return [row | {"tokens": len(encoding.ids)} for row, encoding in zip(rows, encoded, strict=True)]


def main() -> None:
    with open_stage("validate_sft") as stage:
        params = stage.params.validate_sft
        demonstrations = [
            row
            for split, path in (("train", artifacts.SFT_TRAIN), ("held_out", artifacts.SFT_HELD_OUT))
            for row in conversation_rows(read_conversations(path), split, last_role="assistant")
        ]
        prompts = [
            row
            for split, path in (
                ("labeling", artifacts.PROMPTS_LABELING),
                ("alignment", artifacts.PROMPTS_ALIGNMENT),
                ("held_out", artifacts.PROMPTS_HELD_OUT),
            )
            for row in conversation_rows(read_conversations(path), split, last_role="user")
        ]
        demonstrations = with_tokens(demonstrations, load_tokenizer(artifacts.TRAIN_TOKENIZER))
        tables = [
            demonstration_table(demonstrations, params.min_conversations, params.max_tokens),
            prompt_table(prompts),
        ]
        try:
            metrics = check("Demonstrations and prompts", tables, stage.out)
        finally:  # a broken contract is what people want to see the report of
            stage.tracker.log_artifact(stage.out)
        stage.write_metrics(metrics)


if __name__ == "__main__":
    main()
