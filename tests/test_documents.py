"""Pages that name files name files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["docs/THREAT_MODEL.md", "docs/SCALING.md", "docs/DEPLOY.md"]
FOLDERS = "benchmarks|dags|deploy|docs|evals|labeling|pipelines|serving|tests"


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_the_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(rf"(?:^|[`( ])((?:{FOLDERS})/[\w./-]*\w)", text, re.MULTILINE)
    assert named
    assert [path for path in named if not (ROOT / path).exists() and path != "deploy/.env"] == []
