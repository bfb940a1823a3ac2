"""Response models of trained models. Imports no services; pure."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.schemas.common import Response, UtcTime
from app.schemas.evaluations import MetricsRead, MetricsSummary

# What a model is exported as.
ExportFormat = Literal["onnx", "safetensors", "bundle"]


class _Lineage(Response):
    """A part of a lineage: members that a release wrote and that have no field here are returned too."""

    model_config = ConfigDict(extra="allow")


class DatasetLineage(_Lineage):
    """The dataset that a model was trained on, as it was then."""

    id: str | None = None
    name: str | None = None
    num_images: int | None = Field(None, description="Of all splits.")
    num_real: int | None = Field(None, description="How many of them were uploaded.")
    version: str | None = Field(None, description="SHA-256 of the content: file hashes by split and class.")


class BackboneLineage(_Lineage):
    """The frozen network whose features a model classifies."""

    name: str | None = None
    architecture: str | None = None
    weights_sha256: str | None = None
    preprocessing: dict[str, Any] | str | None = Field(
        None, description="The settings, as in `GET /backbones`; a text in models of releases before 0.3."
    )
    device: str | None = Field(None, description="What computed the features: `cpu` or `cuda`.")
    dtype: str | None = None
    torch: str | None = Field(None, description="Version of the library.")


class TrainingLineage(_Lineage):
    """How a model was trained: the settings of its train job."""

    method: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: dict[str, Any] | None = None
    seed: int | None = None


class ModelLineage(Response):
    """What a model was made from; null where the release that trained it did not record it."""

    dataset: DatasetLineage | None = None
    backbone: BackboneLineage | None = None
    training: TrainingLineage | None = None


class ModelSummary(Response):
    """A trained model as lists return it: classes, metrics without tables, and lineage."""

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
    lineage: ModelLineage
    sha256: str
    num_bytes: int


class ModelRead(ModelSummary):
    """A trained model with all its metrics."""

    metrics: MetricsRead
