"""The rows of the table `evaluations`: added by the jobs that evaluate, read by the API.

Imports no HTTP framework, no torch. Functions run inside the caller's transaction, on the caller's thread.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Evaluation
from app.schemas.evaluations import EvaluatedSplit, SourcedMetricsRead, SourcedMetricsSummary
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.predictions import StoredPredictions


@dataclass(frozen=True, slots=True)
class EvaluatedDataset:
    """The dataset of an evaluation as it was then.

    Attributes:
        id: Its id; the dataset may be deleted later.
        name: Its name.
        version: The hash of its content, `versions.content_version`.
        num_images: The number of images of the evaluated split.
        num_real: How many of them were uploaded.
    """

    id: str
    name: str
    version: str
    num_images: int
    num_real: int

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "EvaluatedDataset":
        """Read what `to_json` returned."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return asdict(self)


def evaluation_row(
    session: Session,
    *,
    model_id: str,
    job_id: str,
    dataset: EvaluatedDataset,
    split: EvaluatedSplit,
    metrics: SourcedMetricsRead,
    details: EvaluationDetails,
    predictions: StoredPredictions,
) -> Evaluation:
    """Add the evaluation of a job and return its row; the model's row must be in the database or in the session.

    A second row of the same job is refused by the database.
    """
    tables = metrics.model_dump(mode="json")
    facts = dataset.to_json()
    row = Evaluation(
        id=new_id(),
        model_id=model_id,
        job_id=job_id,
        dataset_id=facts.pop("id"),
        dataset=facts,
        split=split,
        summary=SourcedMetricsSummary.model_validate(tables).model_dump(mode="json"),
        tables=tables,
        details=details.to_json(),
        predictions=predictions.to_json(),
    )
    session.add(row)
    return row
