"""LoRA files: which layers of a model they change, and by how much.

Reads the key forms of diffusers, PEFT and kohya from safetensors, for linear layers and convolutions of UNet and text
encoder. A file that does not fit the loaded model is refused with a sentence. Imports no diffusers; any thread may use
it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

UNET, TEXT_ENCODER = "unet", "text_encoder"
MODELS = (UNET, TEXT_ENCODER)

# The shapes of the weights of a model's linear layers and convolutions, by the layer's name, for each of `MODELS`.
LayerShapes = Mapping[str, Mapping[str, torch.Size]]

PICKLE_SUFFIXES: Final = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl"})
IS_PICKLE: Final = "It is a pickle, which can run any code when it is loaded. Convert it to .safetensors."
IS_BROKEN: Final = "It is truncated or not a safetensors file."
NOT_FINITE: Final = "It has weights that are not finite numbers."

# What a key ends with, and what it holds; the longest ends first.
_ROLES: Final = {
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".alpha": "alpha",
}
_KOHYA: Final = {"lora_unet_": UNET, "lora_te1_": TEXT_ENCODER, "lora_te_": TEXT_ENCODER}
_XL: Final = ("lora_te2_", "text_encoder_2.")
# Where PEFT's settings stand in the header of a file that diffusers has written.
_METADATA: Final = "lora_adapter_metadata"
_MAX_NAMED_CHARS: Final = 80


class AdapterFault(Exception):
    """A file cannot be used; the text is a sentence for people, without a path of this machine."""


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The low-rank change of one layer: keys in the file, and the factor alpha / rank of their product."""

    model: str
    name: str
    down: str
    up: str
    rank: int
    alpha: float | None
    is_rank_stabilised: bool = False

    @property
    def scale(self) -> float:
        """The factor of the product; 1 without an alpha."""
        if self.alpha is None:
            return 1.0
        return self.alpha / (math.sqrt(self.rank) if self.is_rank_stabilised else self.rank)


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA that fits the loaded model."""

    path: Path
    layers: tuple[LoraLayer, ...]

    @property
    def rank(self) -> int:
        """The largest rank of its layers, >= 1."""
        return max(layer.rank for layer in self.layers)

    def touched(self, model: str) -> set[str]:
        """Return the names of the layers of a model that it changes."""
        return {layer.name for layer in self.layers if layer.model == model}

    def deltas(self, model: str, shapes: LayerShapes) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each layer's name and what weight 1 adds to it, in float32 and in the shape of the layer's weight.

        Raises:
            AdapterFault: The file cannot be read any more, or has weights that are not finite.

        Source:
            arXiv:2106.09685; for convolutions as in LoCon, where the first factor has the kernel.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                for layer in self.layers:
                    if layer.model == model:
                        up, down = (file.get_tensor(key).float().flatten(1) for key in (layer.up, layer.down))
                        delta = up @ down * layer.scale
                        if not delta.isfinite().all():
                            raise AdapterFault(NOT_FINITE)
                        yield layer.name, delta.reshape(shapes[model][layer.name])
        except (OSError, SafetensorError) as error:
            raise AdapterFault(IS_BROKEN) from error


def read_lora(path: Path, shapes: LayerShapes) -> LoraFile:
    """Read a file's header and its alphas, and compare it with the loaded model.

    Raises:
        AdapterFault: The file is broken, of another kind, or for another model; says which.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            settings = _settings(file.metadata() or {})
            sizes = {key: torch.Size(file.get_slice(key).get_shape()) for key in keys}
            alphas = {key: float(file.get_tensor(key)) for key in keys if key.endswith(".alpha")}
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise AdapterFault(IS_BROKEN) from error
    found = _by_layer(keys, _Names(shapes))
    layers = [_layer(target, parts, sizes, alphas, settings) for target, parts in found.items()]
    for layer in layers:
        _check_shape(layer, sizes, shapes[layer.model][layer.name])
    return LoraFile(path, tuple(layers))


class _Names:
    """From the names that files give layers to those of the loaded model."""

    def __init__(self, shapes: LayerShapes) -> None:
        self._shapes = shapes
        self._flat = {model: {name.replace(".", "_"): name for name in shapes[model]} for model in MODELS}

    def find(self, stem: str) -> tuple[str, str] | None:
        """Return model and layer that a key without its end means; None where the loaded model has no such layer."""
        for start, model in _KOHYA.items():
            if stem.startswith(start):
                flat = stem.removeprefix(start)
                name = self._flat[model].get(flat) or self._flat[model].get(flat.removeprefix("text_model_"))
                return (model, name) if name else None
        stem = stem.removeprefix("base_model.model.").replace(".processor.", ".")
        model, _, name = stem.partition(".")
        if model not in MODELS:
            model, name = UNET, stem  # the oldest files have no prefix
        for candidate in (name, f"{name}.0", name.removeprefix("text_model."), f"text_model.{name}"):
            if candidate in self._shapes[model]:
                return model, candidate
        return None


def _by_layer(keys: list[str], names: _Names) -> dict[tuple[str, str], dict[str, str]]:
    """Return the keys of each layer by their role; raises AdapterFault for what is not understood."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    unknown = 0
    for key in keys:
        if key.startswith(_XL):
            raise AdapterFault("It is for Stable Diffusion XL.")
        end = next((end for end in _ROLES if key.endswith(end)), None)
        if end is None:
            raise AdapterFault(
                f"It has weights that are not those of a LoRA of linear layers and convolutions: {_short(key)}."
            )
        target = names.find(key.removesuffix(end))
        if target is None:
            unknown += 1
        else:
            found.setdefault(target, {})[_ROLES[end]] = key
    if unknown or not found:
        raise AdapterFault(
            f"It is for another architecture: the loaded model has no layer for {unknown} of its {len(keys)} weights."
        )
    return found


def _layer(
    target: tuple[str, str],
    parts: Mapping[str, str],
    sizes: Mapping[str, torch.Size],
    alphas: Mapping[str, float],
    settings: Mapping[str, Any],
) -> LoraLayer:
    model, name = target
    if not {"down", "up"} <= parts.keys():
        raise AdapterFault(f"It is incomplete: one of two factors of {_short(name)} is missing.")
    alpha = alphas[parts["alpha"]] if "alpha" in parts else _alpha_of(settings, model, name)
    is_stabilised = settings.get(f"{model}.use_rslora") is True
    rank = sizes[parts["down"]][0] if sizes[parts["down"]] else 0
    return LoraLayer(model, name, parts["down"], parts["up"], rank, alpha, is_stabilised)


def _check_shape(layer: LoraLayer, sizes: Mapping[str, torch.Size], shape: torch.Size) -> None:
    """Raise AdapterFault unless the product of the factors has the shape of the layer's weight."""
    down, up, rank = sizes[layer.down], sizes[layer.up], layer.rank
    fits = (
        min(len(down), len(up)) >= 2
        and rank >= 1
        and down.numel() == rank * math.prod(shape[1:])
        and up.numel() == shape[0] * rank
        and up[0] == shape[0]
    )
    if not fits:
        raise AdapterFault(f"It is for a model of another size: {_short(layer.name)} has other dimensions here.")


def _settings(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    settings = json.loads(metadata.get(_METADATA, "{}"))
    return settings if isinstance(settings, dict) else {}


def _alpha_of(settings: Mapping[str, Any], model: str, name: str) -> float | None:
    """Return the alpha of PEFT's settings for a layer; None where they have none.

    Raises:
        AdapterFault: It is not a number.
    """
    patterns, alpha = settings.get(f"{model}.alpha_pattern"), settings.get(f"{model}.lora_alpha")
    for pattern, own in patterns.items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(.*\.)?{re.escape(pattern)}", name):
            alpha = own
            break
    if alpha is not None and not isinstance(alpha, int | float):
        raise AdapterFault("Its settings have an alpha that is not a number.")
    return None if alpha is None else float(alpha)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_NAMED_CHARS else f"{text[:_MAX_NAMED_CHARS]}…"
