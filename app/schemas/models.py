"""Response models of trained models. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import Page, Response, UtcTime
from app.schemas.evaluations import MetricsRead, MetricsSummary
from app.schemas.lineage import ModelLineage

ExportFormat = TypeAliasType(
    "ExportFormat",
    Annotated[Literal["onnx", "safetensors", "bundle"], Field(description="What a model is exported as.")],
)
WeightsFormat = TypeAliasType(
    "WeightsFormat", Annotated[Literal["safetensors"], Field(description="Format of a model's weights.")]
)


class ModelSummary(Response):
    """A trained model as lists return it: classes, and metrics without tables."""

    id: str
    name: str
    created_at: UtcTime
    job_id: str
    dataset_id: str
    backbone: str
    backbone_sha256: str = Field(
        description="SHA-256 of the backbone's weights; `/classify` needs the same weights to be loaded."
    )
    classes: list[str]
    metrics: MetricsSummary
    sha256: str
    num_bytes: int


class ModelRead(ModelSummary):
    """A trained model with all its metrics and its lineage."""

    metrics: MetricsRead
    lineage: ModelLineage


class ModelPage(Page[ModelSummary]):
    """A page of trained models, newest first."""
