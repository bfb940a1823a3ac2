"""Stable Diffusion 1.x from a single `.safetensors` file in the key layout of the original LDM code.

Renames the keys by diffusers' own conversion, with configurations from a local folder or those of Stable Diffusion 1.x:
nothing reaches the network. Rejects files that do not have exactly the weights of the architecture. Reads no tokenizer.
Runs on the engine's loader thread.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from app.modelpacks.pack import ModelPack

SUFFIX = ".safetensors"

Tensors = Mapping[str, torch.Tensor]

# The files of other tools that are pickles or may hold some.
_PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})

# What stands in the `config.json` of stable-diffusion-v1-5, where it differs from diffusers' defaults.
_CONFIGS: Mapping[str, Mapping[str, object]] = {
    "unet": {"cross_attention_dim": 768, "sample_size": 64},
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "layers_per_block": 2,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder": {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
        "vocab_size": 49408,
    },
    "scheduler": {
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
}

# The beginning of the keys of each part, and its name for people.
_UNET, _VAE, _TEXTS = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
_PARTS = {_UNET: "UNet", _VAE: "VAE", _TEXTS: "text encoder"}
# (320, 4, 3, 3); of inpainting models (320, 9, 3, 3).
_FIRST_CONV = f"{_UNET}input_blocks.0.0.weight"

# The beginning of keys that only other kinds of files have, and what such a file is.
_OTHERS = {
    "conditioner.": "is a checkpoint of Stable Diffusion XL, and only 1.x is supported",
    "cond_stage_model.model.": "is a checkpoint of Stable Diffusion 2, and only 1.x is supported",
    "control_model.": "is a ControlNet, not a Stable Diffusion 1.x checkpoint",
    "lora_": "is a LoRA; it belongs into the folder FOXHOUND_LORAS_DIR",
}


class CheckpointFile:
    """A single-file checkpoint, and the folder of its name without the suffix, which may hold configurations."""

    def __init__(self, pack: ModelPack, path: Path) -> None:
        """Name the file; nothing is read yet."""
        self._pack = pack
        self.path = path
        self.folder = path.with_suffix("")

    def config(self, part: str) -> dict[str, Any]:
        """Return the configuration of `unet`, `vae`, `text_encoder` or `scheduler`: the folder's, else that of 1.x.

        That of 1.x says nothing of the UNet's input channels, which `_unet_config` reads from the weights.

        Raises:
            PackError: The folder's file is not a JSON object.
        """
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        path = self.folder / part / name
        if not path.is_file():
            return dict(_CONFIGS[part])
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict):
            raise self._pack.fault(self.path, f"has a {part}/{name} beside it that is not a JSON object")
        return content

    def load(self, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return text encoder, UNet and VAE, on the device and in eval mode.

        Raises:
            PackError: The file is missing, broken, or no checkpoint of Stable Diffusion 1.x; the message says which.
        """
        return self._assemble(self._read((*_PARTS,), dtype), device)

    def skeletons(self, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return text encoder, UNet and VAE without weights, from the file's head alone; raises as `load`."""
        tensors = self._read((*_PARTS,), dtype, heads_only=True)
        return self._assemble(tensors, torch.device("meta"))

    def load_unet(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Return the UNet alone; raises as `load`."""
        tensors = self._read((_UNET,), dtype)
        return self._build(device, "UNet", lambda: _unet(self._unet_config(tensors), tensors))

    def load_text_encoder(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Return the text encoder alone; raises as `load`."""
        tensors = self._read((_TEXTS,), dtype)
        return self._build(device, "text encoder", lambda: _text_encoder(self.config("text_encoder"), tensors))

    def _unet_config(self, tensors: Tensors) -> dict[str, Any]:
        """Return the UNet's configuration; without one in the folder, with the input channels that the file has.

        Source:
            diffusers `infer_diffusers_model_type`, which tells inpainting models by the same tensor.
        """
        config = self.config("unet")
        if "in_channels" not in config:
            config["in_channels"] = tensors[_FIRST_CONV].shape[1]
        return config

    def _assemble(self, tensors: Tensors, device: torch.device) -> tuple[nn.Module, nn.Module, nn.Module]:
        text_encoder = self._build(device, "text encoder", lambda: _text_encoder(self.config("text_encoder"), tensors))
        unet = self._build(device, "UNet", lambda: _unet(self._unet_config(tensors), tensors))
        return text_encoder, unet, self._build(device, "VAE", lambda: _vae(self.config("vae"), tensors))

    def _read(self, starts: tuple[str, ...], dtype: torch.dtype, *, heads_only: bool = False) -> Tensors:
        """Return the tensors whose keys start so; raises PackError for a file that is no checkpoint.

        With `heads_only` they have no values.
        """
        if self.path.suffix.lower() in _PICKLES:
            raise self._pack.fault(
                self.path, "is a pickle, which can run any code when it is loaded; convert it to .safetensors first"
            )
        try:
            with safe_open(self.path, framework="pt") as file:
                keys = set(file.keys())
                self._check_keys(keys)
                wanted = [key for key in keys if key.startswith(starts)]
                if heads_only:
                    sizes = {key: file.get_slice(key).get_shape() for key in wanted}
                    return {key: torch.empty(size, dtype=dtype, device="meta") for key, size in sizes.items()}
                return {key: file.get_tensor(key).to(dtype) for key in wanted}
        except (OSError, SafetensorError) as error:
            raise self._pack.fault(self.path, "cannot be read: it is truncated or not a safetensors file") from error

    def _check_keys(self, keys: set[str]) -> None:
        """Raise PackError unless the keys are those of a Stable Diffusion 1.x checkpoint with all three parts."""
        for start, what in _OTHERS.items():
            if any(key.startswith(start) for key in keys):
                raise self._pack.fault(self.path, what)
        missing = [name for start, name in _PARTS.items() if not any(key.startswith(start) for key in keys)]
        if len(missing) == len(_PARTS):
            raise self._pack.fault(self.path, "is not a Stable Diffusion 1.x checkpoint in the original key layout")
        if missing:
            raise self._pack.fault(self.path, f"has no {' and no '.join(missing)}; a full checkpoint is needed")

    def _build(self, device: torch.device, name: str, build: Callable[[], nn.Module]) -> nn.Module:
        try:
            return build().eval().requires_grad_(False).to(device)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise self._pack.fault(
                self.path, f"has a {name} that is not one of Stable Diffusion 1.x, or lacks weights of it"
            ) from error


def _text_encoder(config: dict[str, Any], tensors: Tensors) -> nn.Module:
    with _empty():
        model: nn.Module = CLIPTextModel(CLIPTextConfig(**_plain(config)))
    weights: dict[str, torch.Tensor] = convert_ldm_clip_checkpoint(tensors)
    weights.pop("text_model.embeddings.position_ids", None)  # a range, which old files have
    if not hasattr(model, "text_model"):  # transformers 5.6 flattened the model
        weights = {key.removeprefix("text_model."): tensor for key, tensor in weights.items()}
    return _filled(model, weights)


def _unet(config: dict[str, Any], tensors: Tensors) -> nn.Module:
    with _empty():
        model = UNet2DConditionModel.from_config(config)
    return _filled(model, convert_ldm_unet_checkpoint(dict(tensors), model.config)).to(
        memory_format=torch.channels_last
    )


def _vae(config: dict[str, Any], tensors: Tensors) -> nn.Module:
    with _empty():
        model = AutoencoderKL.from_config(config)
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(_VAE)}
    return _filled(model, convert_ldm_vae_checkpoint(own, model.config)).to(memory_format=torch.channels_last)


def _empty() -> AbstractContextManager[None]:
    """Build parameters without memory: all are replaced. Buffers are real, because they are in no file."""
    context: AbstractContextManager[None] = init_empty_weights(include_buffers=False)
    return context


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in config.items() if not name.startswith("_") and name != "transformers_version"
    }


def _filled(model: nn.Module, weights: Tensors) -> nn.Module:
    """Give a model its weights; raises RuntimeError unless they are exactly those."""
    model.load_state_dict({key: tensor.contiguous() for key, tensor in weights.items()}, strict=True, assign=True)
    return model
