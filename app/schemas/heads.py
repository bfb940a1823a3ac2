"""How a train job trains its head, as requests give it and as answers tell it. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import Recorded, Request, Seed

Solver = TypeAliasType("Solver", Literal["sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep"])
SweepSolver = TypeAliasType("SweepSolver", Literal["sgd", "adamw", "lbfgs"])
GradientSolver = TypeAliasType("GradientSolver", Literal["sgd", "adamw"])
Schedule = TypeAliasType(
    "Schedule",
    Annotated[
        Literal["constant", "cosine", "step"],
        Field(description="Of the learning rate by epoch; `step`: a tenth every 7 epochs."),
    ],
)
FineTuneMode = TypeAliasType(
    "FineTuneMode",
    Annotated[
        Literal["head", "last_block", "all"],
        Field(
            description="`head`: the head alone; `last_block`: with the backbone's last stage; `all`: with the whole "
            "backbone."
        ),
    ],
)

Rate = Annotated[float, Field(strict=True, gt=0, le=10)]
Decay = Annotated[float, Field(strict=True, ge=0, le=10)]
Strength = Annotated[float, Field(strict=True, gt=0, le=1_000_000)]


class OptimizerSettings(Request):
    """Settings of the SGD optimizer; those of a request without `head`."""

    name: Literal["sgd"] = "sgd"
    lr: Rate = 0.001
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9


class HeadCreate(Request):
    """How the head is trained on the backbone's features; `epochs` and `batch_size` are those of the train job."""

    solver: Solver = Field(
        "sgd",
        description="`sgd`, `adamw`: mini-batches on cross-entropy. `lbfgs`: logistic regression. `ridge`: least "
        "squares. `prototypes`: the nearest class mean by cosine. `sweep`: the best of several settings of "
        "`sweep_solver` on validation images.",
    )
    lr: Rate = Field(0.001, description="Learning rate (sgd, adamw); a sweep varies it.")
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(0.9, description="Of sgd.")
    weight_decay: Decay = Field(0.0, description="Of sgd (added to the gradient) and adamw (decoupled).")
    c: Strength = Field(1.0, description="Inverse strength of the L2 penalty of lbfgs, on features of norm 1.")
    alpha: Strength = Field(1.0, description="Strength of the L2 penalty of ridge, on features of norm 1.")
    schedule: Schedule = "constant"
    warmup_epochs: Annotated[int, Field(strict=True, ge=0, le=999)] = Field(
        0, description="Epochs of linear warm-up; fewer than `epochs`."
    )
    class_weights: Literal["balanced"] | None = Field(
        None, description="`balanced`: an image weighs in inverse proportion to its class's images."
    )
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(0.0, description="Of sgd and adamw.")
    sweep_solver: SweepSolver = Field(
        "lbfgs", description="What `sweep` varies: lr and weight decay (24 settings), or C (lbfgs)."
    )


class ValidationCreate(Request):
    """The part of each class's training images that settings are chosen by, and that is not trained on."""

    fraction: Annotated[float, Field(strict=True, gt=0, le=0.5)] = 0.2


class EarlyStoppingCreate(Request):
    """Training stops when the validation loss has not fallen; the best epoch's head is kept (sgd, adamw)."""

    patience: Annotated[int, Field(strict=True, ge=1, le=1_000)] = Field(5, description="Epochs to wait.")


class AugmentCreate(Request):
    """Further views of each training image, as additional training rows."""

    flip: Annotated[bool, Field(strict=True)] = Field(True, description="The mirror image.")
    crops: Annotated[int, Field(strict=True, ge=0, le=16)] = Field(0, description="Seeded random parts of the image.")


class OptimizerRead(Recorded):
    """Settings of the SGD optimizer."""

    name: Literal["sgd"] | None = None
    lr: float | None = None
    momentum: float | None = None


class HeadRead(Recorded):
    """How a head is trained, with every setting filled in; settings of other solvers than `solver` have no effect."""

    solver: Solver | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    c: float | None = None
    alpha: float | None = None
    schedule: Schedule | None = None
    warmup_epochs: int | None = None
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float | None = None
    soft_share: float | None = None
    patience: int | None = None
    scaling: str | None = Field(None, description="Of the features; null: the solver's default.")
    normalise: bool | None = None
    sweep_solver: SweepSolver | None = None


class ValidationRead(Recorded):
    """The part of each class's training images that settings are chosen by."""

    fraction: float | None = None


class EarlyStoppingRead(Recorded):
    """How many epochs without a lower validation loss end the training."""

    patience: int | None = None


class ViewsRead(Recorded):
    """Further views of each training image, as additional training rows."""

    flip: bool | None = None
    crops: int | None = None


class FineTuneAugment(Recorded):
    """Random changes of each training picture of a fine-tuning."""

    area: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Range of the part of the picture that is cut out; null: the whole."
    )
    ratio: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Range of that part's width / height."
    )
    flip: bool | None = None
    colour: float | None = None


class FineTuningRead(Recorded):
    """The settings of a fine-tuning, with every default filled in."""

    mode: FineTuneMode | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: GradientSolver | None = None
    lr: float | None = None
    backbone_lr_factor: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    warmup_epochs: int | None = None
    schedule: Schedule | None = None
    label_smoothing: float | None = None
    ema_decay: float | None = None
    augment: FineTuneAugment | None = None
    mixed_precision: str | None = None
    patience: int | None = None
    seed: Seed | None = None
