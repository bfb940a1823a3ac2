"""How a head is trained: the solver and its settings, and the schedule of the learning rate.

Plain values; imports no solver. Runs in the worker, on the thread of its caller.
"""

import math
from dataclasses import dataclass
from typing import Literal

from app.training.rows import ScalingName

Solver = Literal["sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep"]
Schedule = Literal["constant", "cosine", "step"]

STEP_EPOCHS, STEP_FACTOR = 7, 0.1
FEW_SHOTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The settings of a head; the defaults are those of the practical's loop.

    Attributes:
        solver: `sgd` and `adamw`: mini-batches on cross-entropy. `lbfgs`: logistic regression. `ridge`: least squares
            on -1 and 1. `prototypes`: the nearest class mean by cosine. `sweep`: the best of several settings of
            `sweep_solver` on the validation rows.
        epochs: Passes over the training rows, >= 1 (sgd, adamw).
        batch_size: Rows of a gradient step, >= 1; the last batch may be smaller (sgd, adamw).
        lr: Learning rate, >= 0; 0 keeps the first head (sgd, adamw).
        momentum: In [0, 1) (sgd).
        weight_decay: >= 0, of weight and bias; added to the gradient (sgd) or decoupled (adamw), as in torch.optim.
        c: Inverse strength of the L2 penalty, > 0 (lbfgs). The default is scikit-learn's, on features of norm 1.
        alpha: Strength of the L2 penalty, > 0, as in scikit-learn (ridge).
        schedule: Of the learning rate, by epoch: `constant`; `cosine` to 0; `step`: a tenth every 7 epochs, as in
            PyTorch's transfer learning tutorial.
        warmup_epochs: Epochs of linear warm-up before the schedule starts, in 0 ... `epochs` - 1.
        class_weights: `balanced`: a row weighs in inverse proportion to its class's rows. `prototypes` has no loss.
        label_smoothing: In [0, 1): the share of a label's mass that all classes get in equal parts (sgd, adamw).
        soft_share: In [0, 1]: the share of the soft labels, where there are any, in a row's target.
        patience: Epochs without a lower validation loss after which training stops; the best epoch's head is kept.
            None: all epochs are trained and the last one's head is kept.
        scaling: Of the features, before the solver; None: the solver's default, `none` for sgd and adamw, `norm` for
            the others.
        normalise: Whether each row is divided by its L2 norm first, as CLIP's features are; the head keeps the flag.
        sweep_solver: What `sweep` varies: learning rate and weight decay of sgd or adamw (24 settings), or C of lbfgs.
    """

    solver: Solver = "sgd"
    epochs: int = 10
    batch_size: int = 16
    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0
    c: float = 1.0
    alpha: float = 1.0
    schedule: Schedule = "constant"
    warmup_epochs: int = 0
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float = 0.0
    soft_share: float = 0.5
    patience: int | None = None
    scaling: ScalingName | None = None
    normalise: bool = False
    sweep_solver: Literal["sgd", "adamw", "lbfgs"] = "sgd"

    @property
    def is_iterative(self) -> bool:
        """Whether the solver takes gradient steps, so that it has epochs, a first head and soft labels."""
        return self.solver in ("sgd", "adamw") or (self.solver == "sweep" and self.sweep_solver != "lbfgs")

    @property
    def needs_validation(self) -> bool:
        """Whether something is chosen on the validation rows."""
        return self.solver == "sweep" or (self.is_iterative and self.patience is not None)

    @property
    def scaling_name(self) -> ScalingName:
        """The scaling, with the solver's default filled in."""
        return self.scaling or ("none" if self.is_iterative else "norm")

    def check(self) -> None:
        """Refuse settings that no training can have.

        Raises:
            ValueError: A value is out of range, or two settings exclude each other.
        """
        if self.epochs < 1 or self.batch_size < 1 or (self.patience is not None and self.patience < 1):
            raise ValueError("Epochs, rows per batch and the patience must be at least one.")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError("The warm-up must leave an epoch to train at the full learning rate.")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.soft_share <= 1 or not 0 <= self.momentum < 1:
            raise ValueError("Label smoothing and momentum must be in [0, 1), and the share of soft labels in [0, 1].")
        if self.lr < 0 or self.weight_decay < 0 or self.c <= 0 or self.alpha <= 0:
            raise ValueError("Learning rate and weight decay must not be negative; C and alpha must be positive.")
        if self.solver == "sweep" and self.patience is not None:
            raise ValueError("A sweep compares its settings after equal epochs: it does not stop early.")

    def lr_factor(self, epoch: int) -> float:
        """Return by what the learning rate is multiplied in an epoch.

        Args:
            epoch: Counted from 0.

        Source:
            `torch.optim.lr_scheduler.StepLR` and `CosineAnnealingLR`, stepped once an epoch.
        """
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        done = epoch - self.warmup_epochs
        if self.schedule == "step":
            return float(STEP_FACTOR ** (done // STEP_EPOCHS))
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * done / (self.epochs - self.warmup_epochs))) / 2
        return 1.0


def default_settings(smallest_class: int, *, neutral_backbone: bool = True) -> HeadSettings:
    """Choose the head of a request that names none.

    Args:
        smallest_class: Training images of the smallest class.
        neutral_backbone: Whether the backbone was trained on photographs of everything; False for the practical's
            ResNet18, whose head stays the practical's loop.

    Returns:
        Class means for up to 16 images a class: right on 0.91 of the ant and bee photographs with 5 images a class,
        where the practical's loop is right on 0.85 (docs/decisions/0042-heads.md); else the practical's loop.
    """
    if neutral_backbone and smallest_class <= FEW_SHOTS:
        return HeadSettings(solver="prototypes")
    return HeadSettings()
