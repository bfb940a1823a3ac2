"""Files of tensors: safetensors with one JSON text, a digest of the content, written in one step. No pickle.

Imports no networks. Any thread; all functions block.
"""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from app.finetuning.errors import DamagedWeights
from app.storage.files import FILE_MODE, TEMPORARIES, make_folder, storage_errors, sync_folder

Tensors = dict[str, torch.Tensor]

_METADATA = "foxhound"
_FORMAT = 1
_OS_ERROR = re.compile(r"os error (\d+)")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, kind: str, facts: Mapping[str, Any]) -> None:
    """Write a file so that it either exists complete and on disk, or does not exist; an older one is replaced.

    Args:
        path: Path of the file; missing folders are created.
        tensors: By name; any device.
        kind: What the file is; `read_tensors` wants the same.
        facts: Plain JSON values.

    Raises:
        StorageFull: The file does not fit; no partial file remains.
        Unavailable: The storage cannot be written.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"kind": kind, "format": _FORMAT, "sha256": _digest(content), "facts": facts}, sort_keys=True)
    temporary = path.parent / TEMPORARIES / f"{uuid.uuid4().hex}.part"
    with storage_errors():
        make_folder(temporary.parent)
        try:
            _save(content, temporary, text)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def read_tensors(path: Path, *, kind: str) -> tuple[Tensors, dict[str, Any]]:
    """Read a file that `write_tensors` wrote; returns the tensors, on the CPU, and the facts.

    Raises:
        FileNotFoundError: There is no file.
        DamagedWeights: It is damaged, or another kind of file.
    """
    with storage_errors():
        path.stat()
    tensors = load_tensors(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {})[_METADATA])
        facts: dict[str, Any] = said["facts"]
        is_right = (said["kind"], said["format"], said["sha256"]) == (kind, _FORMAT, _digest(tensors))
    except (KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise DamagedWeights from error
    if not is_right:
        raise DamagedWeights
    return tensors, facts


def read_facts(path: Path, *, kind: str) -> dict[str, Any]:
    """Read the facts of a file that `write_tensors` wrote, and no tensor.

    Raises:
        FileNotFoundError: There is no file.
        DamagedWeights: It is another kind of file, or its header is damaged.
    """
    with storage_errors():
        path.stat()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {})[_METADATA])
        facts: dict[str, Any] = said["facts"]
        is_right = (said["kind"], said["format"]) == (kind, _FORMAT)
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise DamagedWeights from error
    if not is_right:
        raise DamagedWeights
    return facts


def load_tensors(path: Path) -> Tensors:
    """Read the tensors of any safetensors file.

    Raises:
        DamagedWeights: The file is missing or no such file.
    """
    try:
        tensors: Tensors = load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise DamagedWeights(f"The weights {path.name} cannot be read.") from error
    return tensors


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(content: Mapping[str, torch.Tensor], path: Path, text: str) -> None:
    """Write and flush a file; the library hides the error number of the operating system in a text."""
    try:
        save_file(dict(content), path, metadata={_METADATA: text})
    except safetensors.SafetensorError as error:
        found = _OS_ERROR.search(str(error))
        raise OSError(int(found[1]) if found else 0, "safetensors could not write") from error
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fchmod(descriptor, FILE_MODE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
