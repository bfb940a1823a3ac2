"""The diffusion models of a node beside the default one: what each is, from its files' heads alone, or why it is none.

Reads configurations and the heads of safetensors files, no weights. Imports no engine. The engine's loader thread
lists; the thread that loads models asks whether files are still those that were listed.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from app.modelpacks.loading import LOADING_ERRORS, check_architecture, find_weights, is_inpainting, read_json
from app.modelpacks.pack import MANIFEST, ModelPack, PackError, read_pack, sha256_of
from app.modelpacks.single_file import CheckpointFile

logger = logging.getLogger(__name__)

# The pipelines whose folders have the networks of Stable Diffusion 1.x.
_PIPELINES = frozenset({"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"})

# Our noise scheduler of each class of diffusers that a `scheduler_config.json` names.
_SCHEDULERS: Mapping[str, str] = {
    "PNDMScheduler": "pndm",
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
}

# Of an image of a model that says nothing of it; the largest is a multiple of the native one, as in the pack sd15.
MIN_SIDE, MAX_NATIVE_SIDES = 64, 2

_NETWORKS = ("unet", "text_encoder", "vae", "safety_checker")


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The networks of a model without weights, as the library builds them.

    Attributes:
        architecture: Equal for models whose networks are built alike.
        num_bytes: Of the weights in memory, those of a safety checker included.
        needs_mask: Whether it repaints parts of pictures and draws nothing else.
    """

    unet: nn.Module
    text_encoder: nn.Module
    architecture: str
    num_bytes: int
    needs_mask: bool = False


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the settings.

    Attributes:
        path: A folder, or a single-file checkpoint.
        pack: How it is loaded, with the sizes that it draws; None where it cannot be used.
        skeleton: Its networks; None where it cannot be used.
        prediction_type: What its UNet predicts, as in its scheduler's configuration.
        fault: Why it cannot be used, in sentences; None where it can.
        stamps: Size and time of each of its files when it was listed.
    """

    name: str
    path: Path
    pack: ModelPack | None = None
    skeleton: Skeleton | None = None
    prediction_type: str | None = None
    fault: str | None = None
    stamps: Mapping[str, tuple[int, int]] | None = None

    def check_unchanged(self) -> None:
        """Raise PackError where the files are no longer those that were listed."""
        try:
            stamps = _stamps(self.path)
        except OSError as error:
            raise PackError("Its files cannot be read any more.") from error
        if stamps != self.stamps:
            raise PackError("Its files were replaced after the node has started. Restart the node.")

    def hash_files(self) -> dict[str, str]:
        """Return the SHA-256 of each file of weights, by its path below the model's folder."""
        if self.path.is_file():
            return {self.path.name: sha256_of(self.path)}
        folder = _diffusion_folder(self)
        return {
            path.relative_to(folder).as_posix(): sha256_of(path)
            for path in (find_weights(_usable(self), folder / name) for name in _NETWORKS if (folder / name).is_dir())
        }


def revision_of(files: Mapping[str, str]) -> str:
    """Return a short name of the weights with these hashes; that of one file begins as its SHA-256."""
    if len(files) == 1:
        return next(iter(files.values()))[:16]
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()[:16]


def architecture_of(unet: Any, text_encoder: nn.Module, vae: nn.Module) -> str:
    """Return a value that is equal for models whose networks are built alike; networks as the library builds them."""
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    shapes = [
        sorted((name, list(value.shape)) for name, value in network.state_dict().items())
        for network in (unet, text_encoder, vae)
    ]
    return hashlib.sha256(json.dumps([config, shapes], sort_keys=True, default=str).encode()).hexdigest()


def list_model(name: str, path: Path, base: ModelPack, dtype: torch.dtype) -> ListedModel:
    """Look at a model of the settings; one that cannot be used is logged, and has the reason.

    Args:
        name: As requests will name it.
        path: A folder of `StableDiffusionPipeline`, that of a model pack, or a single-file checkpoint.
        base: The pack of the default model; its tokenizer is used where a single file has none.
        dtype: Of the weights in memory.
    """
    try:
        pack = _pack_at(name, path, base)
        skeleton, scheduler, native = _look(pack, dtype)
        if not pack.files:
            pack = _with_sizes(pack, scheduler, native, base)
        prediction = str(scheduler.get("prediction_type", "epsilon"))
        return ListedModel(name, path, pack, skeleton, prediction, stamps=_stamps(path))
    except (PackError, OSError) as error:
        fault = error.detail if isinstance(error, PackError) else "Its files cannot be read."
        logger.warning("The model %s cannot be used. %s", name, fault)
        return ListedModel(name, path, fault=fault)


def _pack_at(name: str, path: Path, base: ModelPack) -> ModelPack:
    """Return a pack whose part `diffusion` is the model."""
    if not path.exists():
        raise PackError("There is nothing at its path. Check FOXHOUND_MODELS.")
    if (path / MANIFEST).is_file():
        return replace(read_pack(path, name=name), name=name)
    return replace(base, name=name, revision="", files=(), quality={}, made={}, overrides={"diffusion": path})


def _look(pack: ModelPack, dtype: torch.dtype) -> tuple[Skeleton, Mapping[str, Any], int]:
    """Return the networks, the scheduler's configuration, and the side in pixels that the model was trained for."""
    part = pack.part("diffusion")
    if part.is_file():
        file = CheckpointFile(pack, part)
        text_encoder, unet, vae = file.skeletons(dtype)
        scheduler: Mapping[str, Any] = file.config("scheduler")
    else:
        unet, text_encoder, vae = _skeletons(pack, part, dtype)
        scheduler = read_json(pack, part / "scheduler" / "scheduler_config.json")
    check_architecture(pack, part, unet, vae)
    num_bytes = sum(_num_values(model) for model in (unet, text_encoder, vae))
    if not part.is_file() and (part / "safety_checker").is_dir():
        num_bytes += sum(map(_product, _head(pack, find_weights(pack, part / "safety_checker")).values()))
    architecture = architecture_of(unet, text_encoder, vae)
    skeleton = Skeleton(unet, text_encoder, architecture, num_bytes * dtype.itemsize, is_inpainting(unet, vae))
    return skeleton, scheduler, _native_side(unet, vae)


def _skeletons(pack: ModelPack, folder: Path, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Build the networks of a folder without memory, and compare the UNet with its file; raises PackError."""
    index = read_json(pack, folder / "model_index.json")
    if index.get("_class_name") not in _PIPELINES:
        raise pack.fault(folder / "model_index.json", "is of another kind than Stable Diffusion 1.x")
    of_unet, of_text, of_vae = (read_json(pack, folder / name / "config.json") for name in _NETWORKS[:3])
    if of_unet.get("cross_attention_dim") != of_text.get("hidden_size") or of_unet.get("addition_embed_type"):
        fault = "does not fit the text encoder: it is not of Stable Diffusion 1.x"
        raise pack.fault(folder / "unet" / "config.json", fault)
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(of_unet)
            text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(of_text))
            vae = AutoencoderKL.from_config(of_vae)
    except LOADING_ERRORS as error:
        raise pack.fault(folder, "has configurations that are not of Stable Diffusion 1.x") from error
    path = find_weights(pack, folder / "unet")
    sizes = {key: tuple(value.shape) for key, value in unet.state_dict().items()}
    if sizes != _head(pack, path):
        raise pack.fault(path, "does not have the weights of its architecture")
    for name in ("text_encoder", "vae"):
        _head(pack, find_weights(pack, folder / name))
    # Not their own `to`: that of diffusers warns of layers that are kept in float32 while weights are read.
    for network in (unet, text_encoder, vae):
        nn.Module.to(network, dtype)
    return unet, text_encoder, vae


def _head(pack: ModelPack, path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors by their names; raises PackError for a broken file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise pack.fault(path, "cannot be read: it is truncated or not a safetensors file") from error


def _with_sizes(pack: ModelPack, scheduler: Mapping[str, Any], native: int, base: ModelPack) -> ModelPack:
    """Return the pack with the sizes that the model draws: the base's where both were trained for the same."""
    is_like_base = native == base.native_size
    return replace(
        pack,
        native_size=native,
        min_side=base.min_side if is_like_base else min(MIN_SIDE, native),
        max_side=base.max_side if is_like_base else MAX_NATIVE_SIDES * native,
        default_noise_scheduler=_SCHEDULERS.get(str(scheduler.get("_class_name")), "pndm"),
    )


def _native_side(unet: Any, vae: Any) -> int:
    sample: Any = unet.config.sample_size
    side = int(sample if isinstance(sample, int) else sample[0])
    return side * int(2 ** (len(vae.config.block_out_channels) - 1))


def _num_values(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _product(sizes: tuple[int, ...]) -> int:
    return torch.Size(sizes).numel()


def _usable(model: ListedModel) -> ModelPack:
    if model.pack is None:
        raise PackError(model.fault or "")
    return model.pack


def _diffusion_folder(model: ListedModel) -> Path:
    return _usable(model).part("diffusion")


def _stamps(path: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of a model's files: a folder's, or a checkpoint's and of the folder of its name."""
    folder = path if path.is_dir() else path.with_suffix("")
    paths = [*([] if path.is_dir() else [path]), *(each for each in sorted(folder.rglob("*")) if each.is_file())]
    stats = {each.as_posix(): each.stat() for each in paths}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
