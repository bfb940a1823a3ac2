"""A whole model pack in the real formats, tiny and random: built offline in about a second, seeded.

`build_tiny_pack(folder)` writes what `app.modelpacks` reads: a Stable Diffusion pipeline (VAE factor 8, 64 pixels),
CLIP, a ResNet18 of three classes (its width cannot be less), and the manifest. Nothing it makes means anything.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
import torchvision.models
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from app.modelpacks.pack import describe_file

CLASSES = ("cat", "dog", "fox")

MERGES = ("f o", "fo x</w>", "d o", "do g</w>", "c a", "ca t</w>", "r e", "re d</w>", "a t</w>", "t h", "th e</w>")

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

# Stable Diffusion v1.5's own scheduler_config.json; what it leaves out differs between the noise schedulers
NOISE_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}

MANIFEST = {
    "name": "tiny",
    "revision": "1",
    "licence": "Apache-2.0",
    "native_size": 64,
    "min_side": 16,
    "max_side": 192,
    "default_noise_scheduler": "pndm",
}


def build_tiny_pack(folder: Path, *, seed: int = 0, has_safety_checker: bool = True) -> Path:
    """Write a pack into the folder and return it; the same seed writes the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build_diffusion(folder / "diffusion", has_safety_checker=has_safety_checker)
        build_clip(folder / "clip")
        build_classifier(folder / "classifier")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, **changes: object) -> None:
    files = [asdict(describe_file(folder, path)) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [file for file in files if file["path"] != "manifest.json"]
    (folder / "manifest.json").write_text(json.dumps({**MANIFEST, **changes, "files": files}))


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write a byte-pair tokenizer over all bytes with a few merges, in the files of the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += [merge.replace(" ", "") for merge in MERGES] + [BOS, EOS]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    settings = {"model_max_length": 77, "pad_token": EOS, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def text_settings(tokenizer: CLIPTokenizer) -> dict[str, object]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": 16,
        "vocab_size": len(tokenizer),
    }


VISION_SETTINGS: dict[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "projection_dim": 16,
    "image_size": 32,
    "patch_size": 8,
}


def build_image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def build_diffusion(folder: Path, *, has_safety_checker: bool) -> None:
    tokenizer = build_tokenizer(folder / "tokenizer")
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    text_encoder = CLIPTextModel(CLIPTextConfig(**text_settings(tokenizer)))
    safety_checker = None
    if has_safety_checker:
        config = CLIPConfig(text_config=text_settings(tokenizer), vision_config=VISION_SETTINGS, projection_dim=16)
        safety_checker = StableDiffusionSafetyChecker(config)
        # a cosine is at most 1, so this checker flags nothing
        safety_checker.concept_embeds_weights.data.fill_(2.0)
        safety_checker.special_care_embeds_weights.data.fill_(2.0)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler.from_config(NOISE_SCHEDULER),
        safety_checker=safety_checker,
        feature_extractor=build_image_processor() if has_safety_checker else None,
        requires_safety_checker=has_safety_checker,
    ).save_pretrained(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(NOISE_SCHEDULER))


def build_clip(folder: Path) -> None:
    tokenizer = build_tokenizer(folder)
    CLIPModel(
        CLIPConfig(text_config=text_settings(tokenizer), vision_config=VISION_SETTINGS, projection_dim=16)
    ).save_pretrained(folder)
    # the words of openai/clip-vit-base-patch32
    processing = {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 32,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processing))


def build_classifier(folder: Path) -> None:
    folder.mkdir(parents=True)
    model = torchvision.models.resnet18(weights=None, num_classes=len(CLASSES))
    save_file(model.state_dict(), folder / "model.safetensors")
    preprocessing = {
        "resize": 72,
        "crop": 64,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
    }
    config = {"architecture": "resnet18", "classes": CLASSES, "preprocessing": preprocessing}
    (folder / "config.json").write_text(json.dumps(config))
