"""Response models of the backbones of a node. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import Response, Sha256

BackboneState = TypeAliasType(
    "BackboneState",
    Annotated[
        Literal["ready", "loading", "loadable", "failed"],
        Field(description="`loadable`: it is loaded by the first request that needs it."),
    ],
)
TrainedOn = TypeAliasType("TrainedOn", Literal["drawings", "photographs"])


class PreprocessingRead(Response):
    """How a picture becomes a backbone's input."""

    library: str = Field(description="Whose transform it is: `torchvision`, `timm` or `transformers`.")
    resize: int = Field(ge=1, description="Pixels of the shorter side.")
    crop: int = Field(ge=1, description="Pixels of the square that is cut out of the middle.")
    crop_mode: str
    crop_pct: float | None = Field(description="timm's setting: `crop` / `resize` before rounding; else null.")
    interpolation: str
    mean: list[float] = Field(description="Per channel, of values 0 ... 1.")
    std: list[float]


class BackboneRead(Response):
    """One backbone: a network whose features classifiers are trained on."""

    name: str = Field(description="What `backbone` of `POST /train-jobs` takes.")
    state: BackboneState
    detail: str | None = Field(description="Why it failed; else null.")
    architecture: str | None = Field(description="This and what follows is null while it is not known.")
    trained_on: TrainedOn | None = Field(description="What its training pictures were.")
    input_size: int | None = Field(description="Pixels of its square input.")
    num_features: int | None
    num_parameters: int | None
    num_bytes: int | None = Field(description="Size of the weights.")
    weights_sha256: Sha256 | None
    num_classes: int | None = Field(description="Classes of its own head; null without one.")
    images_per_s: float | None = Field(description="Measured in use on this node; null before its first images.")
    preprocessing: PreprocessingRead | None


class BackbonesRead(Response):
    """The backbones of this node."""

    items: list[BackboneRead]
