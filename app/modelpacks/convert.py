"""Pickled state dicts to safetensors: the only place in the project that opens a pickle.

Called by `fetch.py` alone, for a file whose hash was pinned and checked, with `weights_only`.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from app.modelpacks.pack import PackError


def convert_state_dict(pickle: Path, target: Path, source: str) -> None:
    """Write the tensors of a pickled state dict as safetensors, with the source noted in the header.

    Raises:
        PackError: The file holds anything but tensors.
    """
    try:
        state = torch.load(pickle, map_location="cpu", weights_only=True)
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    except Exception as error:  # pickle raises whatever it likes
        raise PackError(f"{source} is not a file of weights.") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    save_file(tensors, part, metadata={"format": "pt", "source": source})
    _sort_header(part)
    os.replace(part, target)


def _sort_header(path: Path) -> None:
    """Put a safetensors header into one order: the library writes several metadata keys in a random one.

    Features and trained heads are tied to the hash of this file, which must be the same on every node.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.dumps(json.loads(file.read(size)), sort_keys=True, separators=(",", ":"))
        file.seek(8)
        file.write(header.encode().ljust(size))  # the format pads with spaces


def is_converted_from(target: Path, source: str) -> bool:
    """Whether the file is there and was made from this source."""
    try:
        with safe_open(target, framework="pt") as file:
            return bool((file.metadata() or {}).get("source") == source)
    except (OSError, SafetensorError):
        return False
