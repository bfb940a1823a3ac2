"""The file of a trained model: read and verified, or refused with what to do.

Imports no torch and no HTTP framework; any thread of any process.
"""

from typing import Protocol

from app.errors import FileLost
from app.storage.soundness import Fault, FileChecks, LostFile

_CODES: dict[Fault, str] = {"missing": "model_file_missing", "damaged": "model_file_damaged"}


class ModelFile(Protocol):
    """The columns of a model's row that describe its file."""

    @property
    def path(self) -> str:
        """Relative to the data folder."""

    @property
    def num_bytes(self) -> int:
        """The recorded size."""

    @property
    def sha256(self) -> str:
        """The recorded hash, hexadecimal."""


def read_model_file(checks: FileChecks, model: ModelFile) -> bytes:
    """Return the bytes of a model's file.

    Raises:
        FileLost: It is missing or damaged.
    """
    try:
        return checks.read(model.path, num_bytes=model.num_bytes, sha256=model.sha256)
    except LostFile as error:
        raise model_file_lost(error.fault) from None


def model_file_lost(fault: Fault) -> FileLost:
    """Return the error for a model whose file cannot be used."""
    detail = f"The model's file is {fault}. Restore it from a backup, or train the model again by its lineage."
    return FileLost(detail, code=_CODES[fault])
