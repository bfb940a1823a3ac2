"""The dashboard, the alerts and the configuration of Prometheus beside it use only what exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.metrics.series import PREFIX, PROCESS, SERIES

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "foxhound.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

LABELS = {series.full_name: {*series.labels, "instance"} for series in SERIES}
LABELS |= {PREFIX + name: {"instance"} for name in PROCESS}


def expressions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in RULES)


def base_of(name: str) -> str:
    """The series of a name in an expression; a histogram has three."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    kinds = {series.full_name: series.kind for series in SERIES}
    return base if kinds.get(base) == "histogram" else name


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_names_series_and_labels_that_exist(expression: str) -> None:
    for name, selector in re.findall(r"(foxhound_\w+)(\{[^}]*\})?", expression):
        assert base_of(name) in LABELS, name
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert used <= LABELS[base_of(name)], (name, used)
        if base_of(name) != name:
            assert name.endswith(("_bucket", "_sum", "_count"))
    known = set().union(*LABELS.values()) | {"le"}
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouping)) <= known
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    assert re.search(r"foxhound_\w+|up\{", expression)


def test_each_series_is_seen_somewhere() -> None:
    shown = {base_of(name) for expression in expressions() for name in re.findall(r"foxhound_\w+", expression)}
    rarely = {"foxhound_process_virtual_memory_bytes", "foxhound_process_start_time_seconds"}
    assert set(LABELS) - shown - rarely == set()


def test_the_dashboard_can_be_imported() -> None:
    """The members that Grafana asks for, ids that are unique, and panels that do not overlap."""
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time", "annotations"} <= set(DASHBOARD)
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD  # else Grafana takes it for a stored one
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not places & cells, panel["title"]
        places |= cells
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) >= 1
        words = json.dumps(panel["targets"])
        assert set(re.findall(r"\$(\w+)", words)) - {"__rate_interval"} <= variables


def test_each_alert_says_when_how_urgent_and_what_and_is_explained() -> None:
    page = (FOLDER.parent / "monitoring.md").read_text(encoding="utf-8")
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert f"`{rule['alert']}`" in page


def test_prometheus_reads_the_route_and_the_rules() -> None:
    loaded = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = loaded["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("foxhound", "/metrics")
    assert [(FOLDER / name).is_file() for name in loaded["rule_files"]] == [True]
