"""Stable Diffusion 1.x in the key layout of the original code: the inverse of what diffusers converts.

Tests write such files from models of diffusers, tiny or in full size. Source: the names in
`ldm/modules/diffusionmodules/openaimodel.py` and `model.py` of CompVis' repository.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "downsamplers.0.conv": "downsample.conv",
    "upsamplers.0.conv": "upsample.conv",
}


def write_single_file(path: Path, *, unet: Any, vae: Any, text_encoder: Any) -> Path:
    """Write the three models as one checkpoint, with the buffer that old files have."""
    tensors = {
        **{f"model.diffusion_model.{unet_key(key, unet.config)}": value for key, value in unet.state_dict().items()},
        **_vae_tensors(vae),
        **{
            f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}": value
            for key, value in text_encoder.state_dict().items()
        },
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "model_ema.decay": torch.tensor(0.9999),
    }
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def unet_key(key: str, config: Any) -> str:
    """Return the original key of a UNet's weight."""
    layers = config.layers_per_block
    for ours, theirs in _UNET_ENDS.items():
        if key.startswith(f"{ours}."):
            return theirs + key.removeprefix(ours)
    if mid := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        index = 1 if mid[1] == "attentions" else 2 * int(mid[2])
        return f"middle_block.{index}.{_inside(mid[1], mid[3])}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key)
    assert match is not None, key
    is_down, level, kind, layer, rest = match[1] == "down", int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        place = 2 if config.up_block_types[level].startswith("CrossAttn") else 1
        return f"output_blocks.{level * (layers + 1) + layers}.{place}.{rest}"
    block = 1 + level * (layers + 1) + layer if is_down else level * (layers + 1) + layer
    side = "input" if is_down else "output"
    return f"{side}_blocks.{block}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    name, _, end = rest.partition(".")
    return f"{_RESNET[name]}.{end}"


def _vae_tensors(vae: Any) -> dict[str, torch.Tensor]:
    levels = len(vae.config.block_out_channels)
    tensors = {}
    for key, value in vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
        name = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", name)
        name = re.sub(r"up_blocks\.(\d)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", name)
        for ours, theirs in _VAE_NAMES.items():
            name = name.replace(f"{ours}.", f"{theirs}.")
        is_projection = re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", name) is not None
        tensors[f"first_stage_model.{name}"] = value[:, :, None, None] if is_projection else value
    return tensors
