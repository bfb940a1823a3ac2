"""Request models of how a train job trains its head. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.common import Request

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

    solver: Literal["sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep"] = Field(
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
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="Of the learning rate by epoch; `step`: a tenth every 7 epochs."
    )
    warmup_epochs: Annotated[int, Field(strict=True, ge=0, le=999)] = Field(
        0, description="Epochs of linear warm-up; fewer than `epochs`."
    )
    class_weights: Literal["balanced"] | None = Field(
        None, description="`balanced`: an image weighs in inverse proportion to its class's images."
    )
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(0.0, description="Of sgd and adamw.")
    sweep_solver: Literal["sgd", "adamw", "lbfgs"] = Field(
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
