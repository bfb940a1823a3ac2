"""Pickled state dicts to safetensors: the only module in the project that opens a pickle.

`fetch.py` calls it in the CLI, and `photo.py` in the service, for a file whose hash was pinned and checked, with
`weights_only`.
"""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from app.modelpacks.pack import PackError

Tensors = dict[str, torch.Tensor]


def convert_state_dict(
    pickle: Path, target: Path, source: str, *, arrange: Callable[[Tensors], Tensors] = lambda tensors: tensors
) -> None:
    """Write the tensors of a pickled state dict as safetensors, with the source in the header.

    Several processes may write one target at once: each writes all of it, and the last one replaces the others' file.

    Args:
        pickle: The file of the state dict.
        target: The file to write.
        source: Where the pickle is from.
        arrange: Renames the tensors; raises ValueError if they are not those of the model.

    Raises:
        PackError: The file contains other objects than tensors, or cannot be read.
    """
    try:
        state = torch.load(pickle, map_location="cpu", weights_only=True)
        tensors = arrange({name: tensor.detach().contiguous() for name, tensor in state.items()})
    except Exception as error:  # pickle may raise any exception
        raise PackError(f"{source} is not a file of weights.") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        save_file(tensors, part, metadata={"format": "pt", "source": source})
        _sort_header(part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _sort_header(path: Path) -> None:
    """Sort the keys of a safetensors header: the library writes several metadata keys in random order.

    Features and trained heads refer to the hash of this file, which must be the same on every node.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.dumps(json.loads(file.read(size)), sort_keys=True, separators=(",", ":"))
        file.seek(8)
        file.write(header.encode().ljust(size))  # the format pads with spaces


def is_converted_from(target: Path, source: str) -> bool:
    """Whether the file exists and was converted from this source."""
    try:
        with safe_open(target, framework="pt") as file:
            return bool((file.metadata() or {}).get("source") == source)
    except (OSError, SafetensorError):
        return False
