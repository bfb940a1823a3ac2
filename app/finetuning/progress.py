"""How far a fine-tuning is: its finished epochs, the best of them, and whether it is over.

Plain values; imports no torch. Written into each checkpoint, returned to the job after each epoch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.finetuning.errors import FineTuneDiverged
from app.finetuning.settings import FineTuneSettings

# An epoch whose mean loss is above this many times ln K, and above the first batch's loss, has diverged; the linear
# heads' limit is the same.
DIVERGED_ABOVE = 10.0


@dataclass(frozen=True, slots=True)
class FineTuneEpoch:
    """The metrics of one epoch; those of training are averaged while the weights change.

    Attributes:
        epoch: Counted from 1.
        train_loss: Mean over the pictures, with label smoothing and augmentation.
        train_accuracy: In [0, 1], of augmented pictures.
        validation_loss: Mean cross-entropy of the validation pictures under the weights that would be kept; None
            without such pictures.
        validation_accuracy: In [0, 1].
        lr: The head's learning rate in the epoch's last step.
        elapsed_ms: Milliseconds of wall time, with validation and the turns of other models.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    lr: float
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The finished epochs.

    Attributes:
        epochs: In order.
        kept_epoch: The epoch whose weights are kept; 0 before the first.
        first_loss: Of the first batch, before the first step.
    """

    epochs: tuple[FineTuneEpoch, ...] = ()
    kept_epoch: int = 0
    first_loss: float = math.nan

    def with_epoch(self, epoch: FineTuneEpoch, settings: FineTuneSettings) -> "Progress":
        """Return the progress after another epoch."""
        is_kept = settings.patience is None or not self.epochs or _loss(epoch) < _loss(self.epochs[self.kept_epoch - 1])
        kept_epoch = epoch.epoch if is_kept else self.kept_epoch
        return replace(self, epochs=(*self.epochs, epoch), kept_epoch=kept_epoch)

    def up_to(self, epoch: int, settings: FineTuneSettings) -> "Progress":
        """Return the progress as it was after an epoch."""
        progress = replace(self, epochs=(), kept_epoch=0)
        for one in self.epochs[:epoch]:
            progress = progress.with_epoch(one, settings)
        return progress

    def is_over(self, settings: FineTuneSettings) -> bool:
        """Return whether no epoch follows."""
        is_stopped = settings.patience is not None and len(self.epochs) - self.kept_epoch >= settings.patience
        return len(self.epochs) >= settings.epochs or is_stopped

    def check(self, train_loss: float, num_classes: int) -> None:
        """Refuse an epoch that made the network worse than one which knows nothing.

        Raises:
            FineTuneDiverged: Its mean training loss is above 10 ln K and above the first batch's loss.
        """
        if not train_loss <= max(DIVERGED_ABOVE * math.log(num_classes), self.first_loss):
            raise FineTuneDiverged

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        """Read what `to_json` returned; raises KeyError or TypeError for something else."""
        epochs = tuple(FineTuneEpoch(**epoch) for epoch in values["epochs"])
        return cls(epochs, int(values["kept_epoch"]), float(values["first_loss"]))


def _loss(epoch: FineTuneEpoch) -> float:
    """Return the loss that chooses an epoch."""
    return epoch.train_loss if epoch.validation_loss is None else epoch.validation_loss
