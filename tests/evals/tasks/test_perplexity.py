"""The text that perplexity is measured on is the same for every model."""

from pathlib import Path

import pytest

from evals.tasks.perplexity import Perplexity
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows


def test_few_long_documents_still_give_the_samples_that_the_rule_was_planned_with(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "word " * 2000, "source": "s", "license": "l", "metadata": {}} for n in range(2)]
    write_rows(tmp_path / "d.jsonl", rows)
    samples = Perplexity(tmp_path / "d.jsonl", tokens=1600, stride=8, batch_size=1).samples()
    assert len(samples) == 16
    assert {len(sample["text"]) for sample in samples} == {400}
    assert len({sample["id"] for sample in samples}) == 16
    assert {sample["id"].split("#")[0] for sample in samples} == {"0", "1"}


def test_no_documents_is_bad_input(tmp_path: Path) -> None:
    write_rows(tmp_path / "none.jsonl", [])
    with pytest.raises(BadInput, match="held_out_share"):
        Perplexity(tmp_path / "none.jsonl", 64, 8, 1).samples()
