"""The list of series: names, and labels whose values are few."""

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.metrics.engine import EngineMetrics
from app.metrics.http import Answered, HttpMetrics
from app.metrics.series import SERIES, model_family, rows_bound


def test_names_follow_the_conventions_and_are_unique() -> None:
    names = [series.full_name for series in SERIES]
    assert len(set(names)) == len(names) > 25
    for series in SERIES:
        assert re.fullmatch(r"foxhound_[a-z_]+", series.full_name)
        assert series.full_name.endswith("_total") == (series.kind == "counter")
        assert series.meaning[0].isupper() or series.meaning[0].isdigit()
        assert series.meaning.endswith(".")
        assert bool(series.buckets) == (series.kind == "histogram")


@pytest.mark.parametrize(("rows", "label"), [(1, "1"), (2, "2"), (3, "4"), (32, "32"), (33, "more")])
def test_rows_of_a_step_have_few_labels(rows: int, label: str) -> None:
    assert rows_bound(rows) == label


def test_models_that_come_and_go_share_a_label() -> None:
    assert {model_family(f"backbone:model:{number}") for number in range(9)} == {"backbone"}
    assert model_family("diffusion") == "diffusion"


def test_a_code_that_is_no_error_code_is_no_label() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    metrics.refuse(Answered("GET", "none", 404, code="a client's word"))
    metrics.refuse(Answered("GET", "none", 404, code="not_found"))
    text = generate_latest(registry).decode()
    assert 'foxhound_problems_total{code="other",status="404"} 1.0' in text
    assert 'foxhound_problems_total{code="not_found",status="404"} 1.0' in text


def test_registries_are_independent() -> None:
    """Tests start many nodes in one process."""
    for _ in range(2):
        registry = CollectorRegistry()
        EngineMetrics(registry)
        assert b"foxhound_engine_rows_total" in generate_latest(registry)
