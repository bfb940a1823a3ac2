"""LoRA files with random weights, in the key forms of diffusers, PEFT and kohya, for a UNet and a text encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

Form = Literal["peft", "diffusers", "kohya"]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LINEAR = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "time_emb_proj", "linear_1")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in")
TEXTS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

_SIDES: Mapping[Form, tuple[str, str]] = {
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "diffusers": (".lora.down.weight", ".lora.up.weight"),
    "kohya": (".lora_down.weight", ".lora_up.weight"),
}


def layers_of(model: nn.Module, ends: Sequence[str]) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the linear layers and convolutions whose names end so."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(f".{name}".endswith(f".{end}") for end in ends)
    }


def lora_tensors(
    unet: Any,
    text_encoder: Any = None,
    *,
    rank: int = 4,
    ends: Sequence[str] = ATTENTION,
    form: Form = "kohya",
    alpha: float | None = None,
    seed: int = 0,
    size: float = 0.3,
) -> dict[str, torch.Tensor]:
    """Return a LoRA of these layers; of the text encoder all linear ones."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for model, part, part_ends in (("unet", unet, ends), ("text_encoder", text_encoder, TEXTS)):
        for name, layer in ({} if part is None else layers_of(part, part_ends)).items():
            stem, (down, up) = _stem(form, model, name), _SIDES[form]
            if form == "diffusers" and model == "text_encoder":
                down, up = (side.replace(".lora.", ".lora_linear_layer.") for side in (down, up))
            weight = layer.weight
            kernel = weight.shape[2:]
            tensors[stem + down] = (
                torch.randn(rank, *weight.shape[1:], generator=generator) * size / weight[0].numel() ** 0.5
            )
            tensors[stem + up] = torch.randn(weight.shape[0], rank, *(1 for _ in kernel), generator=generator) * size
            if alpha is not None:
                tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


def write_lora(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def _stem(form: Form, model: str, name: str) -> str:
    if model == "text_encoder" and not name.startswith("text_model."):
        name = f"text_model.{name}"
    if form == "kohya":
        return f"lora_{'unet' if model == 'unet' else 'te'}_{name.replace('.', '_')}"
    return f"{model}.{name}"
