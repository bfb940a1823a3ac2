"""Revision 0006 takes prompts, matrices and copies of both out of the rows that are updated and listed, and back."""

import json
from typing import Any

import pytest
from alembic import command
from sqlalchemy import NullPool, create_engine, text

from app.db.migrations import alembic_config, migrate
from app.db.session import database_url as parse_url

BEFORE = "0006"
NUM_ROWS = 3
CLASSES = [
    {"name": "fox", "folder": "fox", "label": "red fox", "prompts": ["{style} é", "b"], "negative_prompt": "x"},
    {"name": "dog", "folder": "dog", "prompts": ["c"], "negative_prompt": ""},
]
RECIPE = {"preset": None, "combine": "cartesian", "filter": None, "max_attempts": 3, "variables": {"style": ["", "é"]}}
FIGURES = {"accuracy": 0.5, "macro_f1": 0.25}
TABLES = {"per_class": [{"precision": 1.0}], "confusion_matrix": [[1, 0], [1, 0]]}
REQUEST = {"name": "d", "seed": 7, "classes": CLASSES, "variables": RECIPE["variables"], "train_per_class": 4}
SMALL = {"name": "d", "seed": 7, "train_per_class": 4}
SPECS = {
    "dataset": ({**REQUEST, "dataset_id": "d0"}, {**SMALL, "dataset_id": "d0"}),
    "train": ({"dataset": REQUEST, "dataset_id": "d0"}, {"dataset": SMALL, "dataset_id": "d0"}),
    "generate": ({"prompt": "a fox", "classes": 1}, {"prompt": "a fox", "classes": 1}),
}  # fmt: skip

ROWS: dict[str, dict[str, Any]] = {
    "datasets": {
        "status": "ready", "seed": 7, "classes": CLASSES, "train_per_class": 1, "test_per_class": 0, "generation": {},
        "recipe": RECIPE,
    },
    "jobs": {
        "status": "queued", "progress_done": 0, "progress_total": 1, "progress_unit": "images", "attempts": 0,
        "cancel_requested": False, "pause_requested": False, "wake_requested": False, "priority": 0, "pace": [],
        "version": 1,
    },
    "models": {
        "dataset_id": "d0", "backbone": "resnet18", "backbone_sha256": "0", "classes": ["fox"], "lineage": {},
        "metrics": {"train": {**FIGURES, **TABLES}, "test": FIGURES}, "sha256": "0", "num_bytes": 1,
    },
}  # fmt: skip


@pytest.fixture
def old_url(empty_database_url: str) -> str:
    command.upgrade(alembic_config(empty_database_url), BEFORE)
    return empty_database_url


def insert(url: str, table: str, **own: Any) -> None:
    values = {"created_at": "2026-01-01 00:00:00", **ROWS[table], **own}
    values = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in values.items()}
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    with create_engine(parse_url(url), poolclass=NullPool).begin() as connection:
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def rows(url: str, table: str, *columns: str, key: str = "id") -> list[tuple[Any, ...]]:
    with create_engine(parse_url(url), poolclass=NullPool).connect() as connection:
        found = connection.execute(text(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {key}"))
        return [tuple(json.loads(value) if isinstance(value, str) else value for value in row) for row in found]


def test_recipes_go_into_a_table_of_their_own_and_come_back(old_url: str) -> None:
    for k in range(NUM_ROWS):
        insert(old_url, "datasets", id=f"d{k}", name=f"d{k}")
    insert(old_url, "datasets", id="e", name="older", recipe=None)
    before = rows(old_url, "datasets", "classes", "recipe")
    migrate(old_url)
    small = [
        {"name": "fox", "folder": "fox", "label": "red fox", "num_prompts": 2},
        {"name": "dog", "folder": "dog", "num_prompts": 1},
    ]
    plain = {name: value for name, value in RECIPE.items() if name != "variables"}
    assert rows(old_url, "datasets", "classes", "recipe") == [(small, plain)] * NUM_ROWS + [(small, None)]
    texts = [{"prompts": entry["prompts"], "negative_prompt": entry["negative_prompt"]} for entry in CLASSES]
    kept = rows(old_url, "dataset_texts", "classes", "variables", key="dataset_id")
    assert kept == [(texts, RECIPE["variables"])] * NUM_ROWS + [(texts, {})]
    command.downgrade(alembic_config(old_url), BEFORE)
    assert rows(old_url, "datasets", "classes", "recipe") == before


def test_jobs_that_wait_keep_what_they_need_and_no_copy_of_their_request(old_url: str) -> None:
    for kind, (spec, _) in SPECS.items():
        insert(old_url, "jobs", id=kind, kind=kind, spec=spec)
    migrate(old_url)
    found = dict(zip(sorted(SPECS), (spec for (spec,) in rows(old_url, "jobs", "spec")), strict=True))
    assert found == {kind: after for kind, (_, after) in SPECS.items()}


def test_what_grows_with_the_classes_leaves_the_figures_of_a_model(old_url: str) -> None:
    insert(old_url, "models", id="m", name="m", job_id="m", path="m")
    before = rows(old_url, "models", "metrics")
    migrate(old_url)
    figures = {"train": FIGURES, "test": FIGURES}
    assert rows(old_url, "models", "metrics", "metric_tables") == [(figures, {"train": TABLES, "test": {}})]
    command.downgrade(alembic_config(old_url), BEFORE)
    assert rows(old_url, "models", "metrics") == before
