"""Response models of a comparison of models on the same images. Imports no services; pure."""

from typing import Annotated

from pydantic import Field

from app.schemas.common import Response
from app.schemas.evaluations import Count, Interval, PairedDifferenceRead
from app.schemas.generations import WarningRead

MAX_COMPARED = 10


class ComparedModel(Response):
    """One model of a comparison."""

    id: str
    name: str
    accuracy: Interval


class ComparedPair(PairedDifferenceRead):
    """Two models of a comparison."""

    first_id: str
    second_id: str


class ComparisonOnSource(Response):
    """Models compared on the images of one source that all of them were evaluated on."""

    num_images: int = Field(ge=1)
    models: Annotated[list[ComparedModel], Field(max_length=MAX_COMPARED)] = Field(description="As asked for.")
    pairs: Annotated[list[ComparedPair], Field(max_length=MAX_COMPARED * (MAX_COMPARED - 1) // 2)]


class ModelComparisonRead(Response):
    """Models compared on the same images, real and generated ones apart."""

    real: ComparisonOnSource | None
    synthetic: ComparisonOnSource | None
    num_left_out: Count = Field(description="Images on which not every model was evaluated, or with other labels.")
    warnings: list[WarningRead]
