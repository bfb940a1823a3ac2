"""The errors of fine-tuning; each has the code and the status of the application's errors.

Imports no torch. The engine passes them unchanged to the caller of an epoch.
"""

from app.error_codes import ErrorCode
from app.errors import Conflict, FileLost, Invalid, StorageFull


class BadFineTune(Invalid):
    """The settings or the examples allow no fine-tuning."""


class FineTuneDiverged(Invalid):
    """The loss or the weights are no longer finite, or the loss is far above that of a head that knows nothing."""

    default_code = ErrorCode.DIVERGED
    default_detail = "The fine-tuning diverged: its loss is far above that of guessing. Use a smaller learning rate."


class UnreadablePicture(FileLost):
    """A picture of the examples is missing or cannot be decoded."""


class DamagedWeights(FileLost):
    """A file of weights is cut off, changed, or not what fine-tuning wrote."""

    default_code = ErrorCode.MODEL_FILE_DAMAGED
    default_detail = "A file of the fine-tuning is damaged. Submit the job again."


class ForeignCheckpoint(Conflict):
    """A checkpoint belongs to other settings, examples or weights, or to another epoch than the one asked for."""

    default_code = ErrorCode.FILE_CHANGED
    default_detail = "The checkpoint belongs to another fine-tuning. Submit the job again."


class NoRoomForWeights(StorageFull):
    """The checkpoints and the model do not fit on the disk; known before the first epoch."""
