"""Dashboard and alert rules: every query parses, and names only what serving exports."""

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "serving.json").read_text(encoding="utf-8"))
RULES = [
    rule for group in YAML(typ="safe", pure=True).load(GRAFANA / "alerts.yaml")["groups"] for rule in group["rules"]
]
QUERIES = {
    **{f"panel {panel['title']}, {t['refId']}": t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]},
    **{f"alert {rule['alert']}": rule["expr"] for rule in RULES},
}
OF_PROMETHEUS = {"up"}  # about its own scraping
METRIC = re.compile(r"\b(bentoml_\w+|colloquy_\w+|up)\b(?=[{[)\s]|$)")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Sample name -> its labels, of the application under BentoML."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.serving.show_metrics"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"(\w+)\{(.*)\} ", line):
            found.setdefault(match[1], set()).update(re.findall(r"(\w+)=\"", match[2]))
    return found


@pytest.mark.parametrize("name", QUERIES)
def test_every_metric_and_label_of_a_query_is_exported(exported: dict[str, set[str]], name: str) -> None:
    metrics = set(METRIC.findall(QUERIES[name])) - OF_PROMETHEUS
    assert metrics or "up{" in QUERIES[name]
    assert metrics <= set(exported)
    for metric, selector in re.findall(r"(bentoml_\w+)\{([^}]*)\}", QUERIES[name]):
        assert set(LABEL.findall(selector)) <= exported[metric]
    for labels in re.findall(r"\bby \(([^)]*)\)", QUERIES[name]):
        assert set(labels.split(", ")) <= set.union(*(exported[metric] for metric in metrics))


def test_the_metric_of_the_autoscaler_is_exported(exported: dict[str, set[str]]) -> None:
    text = (ROOT / "deploy" / "kubernetes" / "chat.yaml").read_text(encoding="utf-8")
    assert set(METRIC.findall(text.replace("}", " "))) == {"bentoml_service_request_in_progress"} <= set(exported)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_parses(name: str) -> None:
    promql = pytest.importorskip("promql_parser", reason="the package promql-parser is not installed")
    promql.parse(QUERIES[name].replace("$__rate_interval", "5m").replace("$release", ".*"))


def test_a_broken_query_would_be_refused() -> None:
    promql = pytest.importorskip("promql_parser", reason="the package promql-parser is not installed")
    with pytest.raises(ValueError):
        promql.parse("sum(rate(bentoml_service_request_total[5m])")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
        assert one["x"] + one["w"] <= 24


def test_the_dashboard_asks_which_prometheus_and_says_what_each_panel_shows() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "release"}
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"]


def test_every_alert_has_a_reason_and_a_remedy() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 0
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "reason", "remedy"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert re.fullmatch(r"\d+m", rule["for"])
