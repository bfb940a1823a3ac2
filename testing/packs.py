"""Writes the `sd15` pack with random weights; everything else is as in the pinned sources.

The folder layout with half-precision safetensors, the configs, the names that the tensors had when the files were made
(the libraries rename them when they load), torchvision's and CLIP's pickles.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from app.modelpacks.convert import convert_state_dict
from app.modelpacks.sd15 import SD15_FACTS, SD15_SOURCES
from testing.tiny import NOISE_SCHEDULER, write_manifest

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}

VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}

VIT_L_TEXT = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}

SAFETY_CHECKER = {
    "architectures": ["StableDiffusionSafetyChecker"],
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": VIT_L_TEXT,
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 224,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
}

VIT_B32 = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "model_type": "clip_text_model",
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "projection_dim": 512,
    },
    "vision_config": {
        "hidden_size": 768,
        "image_size": 224,
        "intermediate_size": 3072,
        "model_type": "clip_vision_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "patch_size": 32,
        "projection_dim": 512,
    },
}

IMAGE_MEAN, IMAGE_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

FEATURE_EXTRACTOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": IMAGE_MEAN,
    "image_processor_type": "CLIPFeatureExtractor",
    "image_std": IMAGE_STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}

CLIP_PREPROCESSOR = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": IMAGE_MEAN,
    "image_std": IMAGE_STD,
    "resample": 3,
    "size": 224,
}

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def random_weights(shapes: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return weights that keep activations near 1: norms are 1, biases 0, the rest normal, scaled by fan-in."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        if shape.ndim < 2:
            value = torch.zeros(shape.shape) if name.endswith(("bias", "running_mean")) else torch.ones(shape.shape)
        else:
            value = torch.randn(shape.shape, generator=generator) / shape[0].numel() ** 0.5
        weights[name] = value.to(dtype if shape.is_floating_point() else shape.dtype)
    return weights


def shapes_of(build: Any) -> dict[str, torch.Tensor]:
    """Return a state dict on the meta device, which takes no memory."""
    with torch.device("meta"):
        state: dict[str, torch.Tensor] = build().state_dict()
    return state


def with_position_ids(weights: dict[str, torch.Tensor], prefix: str, length: int) -> dict[str, torch.Tensor]:
    """Add a buffer that files of that time contain."""
    return {**weights, f"{prefix}embeddings.position_ids": torch.arange(length)[None]}


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of the real size: all bytes, and the 48,894 merges of a vocabulary of 49,408."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(ByteLevel.alphabet())
    merges = [f"{first} {second}</w>" for first in alphabet for second in alphabet][:48894]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(merge.replace(" ", "") for merge in merges)]
    write_json(folder / "vocab.json", {token: index for index, token in enumerate([*tokens, BOS, EOS])})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {
        name: {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for name, content in [("bos_token", BOS), ("eos_token", EOS), ("unk_token", EOS)]
    }
    write_json(folder / "special_tokens_map.json", {**special, "pad_token": EOS})
    settings: dict[str, object] = {name: {"__type": "AddedToken", **token} for name, token in special.items()}
    settings |= {"model_max_length": 77, "pad_token": EOS, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", settings)


def write_diffusion(folder: Path) -> None:
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", NOISE_SCHEDULER)
    write_json(folder / "feature_extractor" / "preprocessor_config.json", FEATURE_EXTRACTOR)
    write_tokenizer(folder / "tokenizer")

    write_json(folder / "unet" / "config.json", UNET)
    weights = random_weights(shapes_of(lambda: UNet2DConditionModel.from_config(UNET)), torch.float16)
    write_weights(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", weights)

    write_json(folder / "vae" / "config.json", VAE)
    weights = random_weights(shapes_of(lambda: AutoencoderKL.from_config(VAE)), torch.float16)
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in old_names.items():
        weights = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in weights.items()}
    write_weights(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors", weights)

    write_json(folder / "text_encoder" / "config.json", VIT_L_TEXT)
    weights = random_weights(shapes_of(lambda: CLIPTextModel(CLIPTextConfig.from_dict(VIT_L_TEXT))), torch.float16)
    weights = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in weights.items()}
    weights = with_position_ids(weights, "text_model.", 77)
    write_weights(folder / "text_encoder" / "model.fp16.safetensors", weights)

    write_json(folder / "safety_checker" / "config.json", SAFETY_CHECKER)
    config = CLIPConfig.from_dict(SAFETY_CHECKER)
    weights = random_weights(shapes_of(lambda: StableDiffusionSafetyChecker(config)), torch.float16)
    weights = {
        f"vision_model.{name}" if name.startswith("vision_model.") else name: tensor for name, tensor in weights.items()
    }
    weights = with_position_ids(weights, "vision_model.vision_model.", 257)
    write_weights(folder / "safety_checker" / "model.fp16.safetensors", weights)


def write_clip(folder: Path) -> None:
    """Write CLIP as its commit has it: a pickle, converted by the code of `models fetch`."""
    write_tokenizer(folder)
    CLIPTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", VIT_B32)
    write_json(folder / "preprocessor_config.json", CLIP_PREPROCESSOR)
    weights = random_weights(shapes_of(lambda: CLIPModel(CLIPConfig.from_dict(VIT_B32))), torch.float32)
    weights = with_position_ids(weights, "text_model.", 77)
    weights = with_position_ids(weights, "vision_model.", 50)
    convert_pickle(weights, folder / "model.safetensors", "pytorch_model.bin")


def write_resnets(folder: Path) -> None:
    """Write torchvision's state dicts as served: pickles, without BatchNorm's counters, which are newer."""
    for source in SD15_SOURCES.torchvision:
        architecture = str(source.config["architecture"])
        weights = random_weights(shapes_of(lambda name=architecture: torchvision.models.get_model(name)), torch.float32)
        weights = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
        write_json(folder / source.part / "config.json", source.config)
        convert_pickle(weights, folder / source.part / "model.safetensors", source.file_name)


def convert_pickle(weights: dict[str, torch.Tensor], target: Path, name: str) -> None:
    pickle = target.parent / name
    torch.save(weights, pickle)
    convert_state_dict(pickle, target, name)
    pickle.unlink()


def write_pack(folder: Path) -> None:
    """Write the whole pack: 3.5 GB."""
    write_diffusion(folder / "diffusion")
    write_clip(folder / "clip")
    write_resnets(folder)
    write_manifest(folder, **SD15_FACTS)
