"""What `evaluate` jobs hand to other processes: the spec and the result.

The chunks are those of train jobs (`app/services/training/payloads.py`). Imports no job engine, no inference and no
torch; runs in every process.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from app.jobs.signals import Json
from app.schemas.evaluations import EvaluatedSplit


@dataclass(frozen=True, slots=True)
class EvaluateSpec:
    """The spec of an `evaluate` job.

    Attributes:
        model_id: What is evaluated.
        dataset_id: What it is evaluated on.
        split: Which images of it.
    """

    model_id: str
    dataset_id: str
    split: EvaluatedSplit

    @classmethod
    def from_json(cls, spec: Mapping[str, Json]) -> "EvaluateSpec":
        """Read a spec."""
        return cls(spec["model_id"], spec["dataset_id"], spec["split"])

    def to_json(self) -> dict[str, Json]:
        """Return the spec."""
        return asdict(self)
