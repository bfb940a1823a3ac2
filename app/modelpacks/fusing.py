"""A model with LoRAs added to its weights, which shares all layers that they leave alone with the model as it is.

Pure functions on modules; reads no files. The thread that loads adapters calls them.
"""

from collections.abc import Collection, Iterable
from typing import cast

import torch
from torch import nn

from app.modelpacks.lora_file import LayerShapes


def layer_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of the weights of all linear layers and convolutions, by name."""
    return {
        name: layer.weight.shape for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }


@torch.inference_mode()
def add_deltas(model: nn.Module, deltas: Iterable[tuple[str, float, torch.Tensor]]) -> None:
    """Add weight x delta to the weights of layers, given as (name, weight, delta in float32).

    A layer's sum is rounded to the model's number format once, after the last of its deltas.
    """
    sums: dict[str, torch.Tensor] = {}
    for name, weight, delta in deltas:
        own = _weight(model, name)
        total = sums.get(name, own.float())
        sums[name] = total + weight * delta.to(own.device)
    for name, total in sums.items():
        _weight(model, name).copy_(total)


def _weight(model: nn.Module, name: str) -> torch.Tensor:
    return cast(torch.Tensor, model.get_submodule(name).weight)


def share_untouched(model: nn.Module, base: nn.Module, touched: Collection[str], prefix: str = "") -> None:
    """Replace every part of a model without touched layers by that of the base, so that its memory is free.

    Where the base has another kind of module in a place, such as an optimised block, the model's own part stays whole.

    Args:
        model: A fresh copy of the base, as the library builds it.
        base: The model that serves.
        touched: Names of layers.
        prefix: Of the names, in recursion.
    """
    for name, child in list(model.named_children()):
        path = f"{prefix}{name}"
        others = getattr(base, name)
        if not any(layer == path or layer.startswith(f"{path}.") for layer in touched):
            setattr(model, name, others)
        elif type(child) is type(others):
            share_untouched(child, others, touched, f"{path}.")


def fused_bytes(shapes: LayerShapes, model: str, touched: Collection[str], itemsize: int) -> int:
    """Return about how many bytes a fused copy of a model adds: the blocks with touched layers, biases apart."""
    blocks = {_block(name) for name in touched}
    return sum(shape.numel() * itemsize for name, shape in shapes[model].items() if _block(name) in blocks)


def _block(name: str) -> str:
    """Return the block of a layer that is replaced as a whole: `down_blocks.1.attentions.0`, `encoder.layers.3`."""
    parts = name.split(".")
    return ".".join(parts[: 3 if parts[0] == "mid_block" else 4])
