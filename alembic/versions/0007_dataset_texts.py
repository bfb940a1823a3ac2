"""What is large and seldom read goes out of the rows that are updated and listed: prompts, matrices, copies of both."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON_DOCUMENT = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
PAGE = 500
TEXTS = ("prompts", "negative_prompt")
TABLES = ("per_class", "confusion_matrix")

DATASETS = sa.table(
    "datasets", sa.column("id"), sa.column("classes", JSON_DOCUMENT), sa.column("recipe", JSON_DOCUMENT)
)
DATASET_TEXTS = sa.table(
    "dataset_texts",
    sa.column("dataset_id"),
    sa.column("classes", JSON_DOCUMENT),
    sa.column("variables", JSON_DOCUMENT),
)
JOBS = sa.table("jobs", sa.column("id"), sa.column("kind"), sa.column("spec", JSON_DOCUMENT))
MODELS = sa.table(
    "models", sa.column("id"), sa.column("metrics", JSON_DOCUMENT), sa.column("metric_tables", JSON_DOCUMENT)
)


def upgrade() -> None:
    op.create_table(
        "dataset_texts",
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("classes", JSON_DOCUMENT, nullable=False),
        sa.Column("variables", JSON_DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_texts_dataset_id_datasets"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_dataset_texts")),
    )
    op.add_column("models", sa.Column("metric_tables", JSON_DOCUMENT, nullable=False, server_default="{}"))
    for row in _rows(DATASETS):
        _take_texts_out(row)
    for row in _rows(JOBS, JOBS.c.kind.in_(["dataset", "train"])):
        _change(JOBS, row.id, spec=_without_texts(row.spec))
    for row in _rows(MODELS):
        tables = {split: _only(figures, TABLES) for split, figures in row.metrics.items()}
        metrics = {split: _without(figures, TABLES) for split, figures in row.metrics.items()}
        _change(MODELS, row.id, metrics=metrics, metric_tables=tables)


def downgrade() -> None:
    for row in _rows(DATASETS):
        _put_texts_back(row)
    for row in _rows(MODELS):
        metrics = {split: {**figures, **row.metric_tables.get(split, {})} for split, figures in row.metrics.items()}
        _change(MODELS, row.id, metrics=metrics)
    op.drop_column("models", "metric_tables")
    op.drop_table("dataset_texts")


def _take_texts_out(row: Any) -> None:
    texts = [_only(entry, TEXTS) for entry in row.classes]
    classes = [{**_without(entry, TEXTS), "num_prompts": len(entry["prompts"])} for entry in row.classes]
    recipe, variables = row.recipe, {}
    if recipe is not None:
        recipe, variables = _without(recipe, ["variables"]), recipe.get("variables", {})
    op.get_bind().execute(DATASET_TEXTS.insert().values(dataset_id=row.id, classes=texts, variables=variables))
    _change(DATASETS, row.id, classes=classes, recipe=recipe)


def _put_texts_back(row: Any) -> None:
    query = sa.select(DATASET_TEXTS).where(DATASET_TEXTS.c.dataset_id == row.id)
    texts = op.get_bind().execute(query).one()
    classes = [
        {**_without(entry, ["num_prompts"]), **text} for entry, text in zip(row.classes, texts.classes, strict=True)
    ]
    recipe = None if row.recipe is None else {**row.recipe, "variables": texts.variables}
    _change(DATASETS, row.id, classes=classes, recipe=recipe)


def _without_texts(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a job's spec as the newer release submits it; what it leaves out, no release reads."""
    small = _without(spec, ["classes", "variables"])
    if isinstance(small.get("dataset"), dict):
        small["dataset"] = _without(small["dataset"], ["classes", "variables"])
    return small


def _rows(table: Any, where: Any = None) -> Iterator[Any]:
    """Give every row, each fetched by itself: one may have many megabytes."""
    last = ""
    while True:
        query = sa.select(table.c.id).where(table.c.id > last, sa.true() if where is None else where)
        ids = op.get_bind().scalars(query.order_by(table.c.id).limit(PAGE)).all()
        for row_id in ids:
            yield op.get_bind().execute(sa.select(table).where(table.c.id == row_id)).one()
        if not ids:
            return
        last = ids[-1]


def _change(table: Any, row_id: str, **values: Any) -> None:
    op.get_bind().execute(table.update().where(table.c.id == row_id).values(**values))


def _only(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _without(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
