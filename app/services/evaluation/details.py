"""What an evaluation found besides its figures: mistakes, suspected label errors and warnings, in stored form.

Imports no database models and no HTTP framework. Runs on the thread of its caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.schemas.evaluations import LabelErrorsRead, MistakeRead
from app.schemas.generations import WarningRead
from app.schemas.train_reports import AblationRow


@dataclass(frozen=True, slots=True)
class EvaluationDetails:
    """The column `details` of an evaluation.

    Attributes:
        mistakes: At most `MAX_LISTED`, the most confident first.
        label_errors: None if labels were not examined; only a train job examines them.
        warnings: What to know before the figures are quoted.
        ablation: What each part of a recipe gave; only train jobs of a preset write it.
    """

    mistakes: list[MistakeRead] = field(default_factory=list)
    label_errors: LabelErrorsRead | None = None
    warnings: list[WarningRead] = field(default_factory=list)
    ablation: list[AblationRow] = field(default_factory=list)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "EvaluationDetails":
        """Read what `to_json` returned."""
        label_errors = stored.get("label_errors")
        return cls(
            mistakes=[MistakeRead.model_validate(one) for one in stored.get("mistakes", [])],
            label_errors=None if label_errors is None else LabelErrorsRead.model_validate(label_errors),
            warnings=[WarningRead.model_validate(one) for one in stored.get("warnings", [])],
            ablation=[AblationRow.model_validate(one) for one in stored.get("ablation", [])],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON."""
        return {
            "mistakes": [one.model_dump(mode="json") for one in self.mistakes],
            "label_errors": None if self.label_errors is None else self.label_errors.model_dump(mode="json"),
            "warnings": [one.model_dump(mode="json") for one in self.warnings],
            "ablation": [one.model_dump(mode="json") for one in self.ablation],
        }
