"""How a backbone is fine-tuned: what is trained, the optimizer, its schedule, augmentation and precision.

Plain values; imports no torch. Any thread of any process.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.error_codes import ErrorCode
from app.finetuning.errors import BadFineTune

Mode = Literal["head", "last_block", "all"]
PrecisionName = Literal["no", "bf16", "fp16", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSettings:
    """Random changes of each training picture.

    Attributes:
        area: Range of the part of the picture that is cut out and resized, in (0, 1]; None: the usual resize and
            centre crop.
        ratio: Range of that part's width / height, > 0.
        flip: Whether half of the pictures are mirrored.
        colour: Brightness, contrast and saturation are each multiplied by a factor of 1 - `colour` ... 1 + `colour`,
            in [0, 1).
    """

    area: tuple[float, float] | None = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    colour: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneSettings:
    """The settings of a fine-tuning; the defaults are those measured in docs/decisions/0049-fine-tuning.md.

    Attributes:
        mode: What is trained: `head`: the linear layer alone; `last_block`: with the backbone's last stage and the
            layers behind it; `all`: with the whole backbone.
        epochs: Passes over the training pictures, >= 1.
        batch_size: Pictures of an optimizer step, >= 1; the last batch of an epoch may be smaller.
        optimizer: `sgd` with momentum, or `adamw`.
        lr: Learning rate of the head, > 0.
        backbone_lr_factor: The backbone's learning rate is `lr` times this, > 0.
        momentum: In [0, 1) (sgd).
        weight_decay: >= 0; of weights of two and more dimensions, not of biases and normalisations. Added to the
            gradient (sgd) or decoupled (adamw), as in torch.optim.
        warmup_epochs: Epochs in which the learning rate rises linearly, >= 0; at most all but one are used.
        schedule: Behind the warm-up, by optimizer step: `cosine` to 0, or `constant`.
        label_smoothing: In [0, 1).
        ema_decay: In (0, 1): the weights are averaged over the steps, and the averages are validated and kept. None:
            the last step's weights are.
        augment: None: every epoch sees the pictures as validation does.
        mixed_precision: `auto`: none on a CPU; on a GPU bf16 where it has it, else fp16. Weights, checkpoints and the
            validation stay float32.
        patience: Epochs without a lower validation loss after which training stops; the best epoch's weights are kept.
            None: all epochs are trained and the last one's weights are kept.
        seed: Of order, augmentation and of a new head, 0 ... 2^63 - 1.
    """

    mode: Mode = "last_block"
    epochs: int = 4
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    backbone_lr_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: int = 1
    schedule: Literal["cosine", "constant"] = "cosine"
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    augment: AugmentSettings | None = AugmentSettings()
    mixed_precision: PrecisionName = "auto"
    patience: int | None = None
    seed: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FineTuneSettings":
        """Read the fields by name, as JSON has them; raises TypeError or KeyError for something else."""
        given: Mapping[str, Any] | None = values["augment"]
        pairs: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in (given or {}).items()
        }
        return cls(**{**values, "augment": None if given is None else AugmentSettings(**pairs)})

    def check(self) -> None:
        """Refuse settings that no fine-tuning can have.

        Raises:
            BadFineTune: A value is out of its range.
        """
        rules = {
            "Epochs, pictures per batch and the patience must be at least one.": (
                self.epochs >= 1 and self.batch_size >= 1 and (self.patience is None or self.patience >= 1)
            ),
            "Learning rates must be positive, weight decay and warm-up not negative.": (
                self.lr > 0 and self.backbone_lr_factor > 0 and min(self.weight_decay, self.warmup_epochs) >= 0
            ),
            "Momentum and label smoothing must be in [0, 1), the decay of averaged weights in (0, 1).": (
                0 <= self.momentum < 1
                and 0 <= self.label_smoothing < 1
                and (self.ema_decay is None or 0 < self.ema_decay < 1)
            ),
            "The parts cut out of a picture or the change of its colours are out of range.": (
                _is_possible(self.augment)
            ),
        }
        for rule, is_kept in rules.items():
            if not is_kept:
                raise BadFineTune(rule)

    def lr_factor(self, step: int, steps_per_epoch: int) -> float:
        """Return by what the learning rates are multiplied in an optimizer step.

        Args:
            step: Counted from 0 over all epochs.
            steps_per_epoch: >= 1.
        """
        warmup = min(self.warmup_epochs, self.epochs - 1) * steps_per_epoch
        total = self.epochs * steps_per_epoch
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def check_examples(classes: int, train: list[int], validation: list[int], settings: FineTuneSettings) -> None:
    """Refuse examples that nothing can be learnt from.

    Args:
        classes: K.
        train: The labels of the training pictures.
        validation: The labels of the validation pictures.
        settings: Checked, too.

    Raises:
        BadFineTune: Fewer than two classes, a class without training pictures, a label that is none, or no validation
            pictures although they are to choose the epoch.
    """
    settings.check()
    if classes < 2:
        raise BadFineTune("Fine-tuning needs at least two classes.", code=ErrorCode.TOO_FEW)
    if any(not 0 <= label < classes for label in [*train, *validation]):
        raise BadFineTune("A label is not one of the classes.")
    if len(set(train)) < classes:
        raise BadFineTune("A class has no training images. Add some.", code=ErrorCode.CLASS_WITHOUT_IMAGES)
    if settings.patience is not None and not validation:
        detail = "Early stopping needs validation images. Ask for a validation split, or leave it out."
        raise BadFineTune(detail, code=ErrorCode.DATASET_EMPTY)


def _is_possible(augment: AugmentSettings | None) -> bool:
    if augment is None:
        return True
    low, high = augment.area or (1.0, 1.0)
    return 0 < low <= high <= 1 and 0 < augment.ratio[0] <= augment.ratio[1] and 0 <= augment.colour < 1
