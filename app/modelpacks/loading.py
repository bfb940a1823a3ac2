"""Loads the models of a pack, with the same code for real and demo weights.

Loads only safetensors from local files, and rejects files that do not fit the architecture: the libraries would replace
missing weights by random numbers. Imports no engine. Runs on the engine's loader thread.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torchvision.models
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from app.modelpacks.pack import ModelPack, sha256_of, verify_part
from app.modelpacks.preprocessing import Preprocessing
from app.modelpacks.single_file import CheckpointFile

# The networks that a pack may contain, and the number of input features of their `fc`.
NUM_FEATURES = {"resnet18": 512, "resnet50": 2048}

# The libraries raise these for files that are missing, broken or of another architecture.
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)


@dataclass(frozen=True, slots=True)
class DiffusionComponents:
    """The components of a `StableDiffusionPipeline`; models on the device, in eval mode.

    Attributes:
        noise_scheduler_config: The pack's `scheduler_config.json`.
        safety_checker: None where the pack has none; then `feature_extractor` is None too.
    """

    tokenizer: Any
    text_encoder: Any
    unet: Any
    vae: Any
    noise_scheduler_config: Mapping[str, object]
    safety_checker: Any | None
    feature_extractor: Any | None


@dataclass(frozen=True, slots=True)
class ClipComponents:
    """A `CLIPModel` on the device, in eval mode, its `CLIPProcessor`, and the hash of its file."""

    model: Any
    processor: Any
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class ClassifierComponents:
    """A ResNet on the device, in eval mode.

    Attributes:
        preprocess: Image (RGB) to (3, crop, crop).
        classes: Names in the order of the logits.
    """

    model: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    preprocessing: Preprocessing
    architecture: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BackboneComponents:
    """A ResNet whose `fc` is the identity, on the device, in eval mode.

    Attributes:
        preprocess: Image (RGB) to (3, crop, crop).
        num_features: Length of its outputs (512 for ResNet18).
        weights_sha256: Hash of its file; other weights give other features.
    """

    model: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    preprocessing: Preprocessing
    architecture: str
    num_features: int
    weights_sha256: str


def load_diffusion(pack: ModelPack, device: torch.device, dtype: torch.dtype) -> DiffusionComponents:
    """Load the components of a Stable Diffusion pipeline, the convolutional ones in channels_last layout.

    Raises:
        PackError: A file is missing, broken, or does not fit the architecture; the message names it.
    """
    folder = verify_part(pack, "diffusion")
    if folder.is_file():
        return _load_single_file(pack, folder, device, dtype)
    index = read_json(pack, folder / "model_index.json")
    has_safety_checker = (index.get("safety_checker") or [None])[0] is not None
    load = _ModelLoader(pack, device, dtype)
    unet, vae = load(UNet2DConditionModel, folder / "unet"), load(AutoencoderKL, folder / "vae")
    check_architecture(pack, folder, unet, vae)
    return DiffusionComponents(
        tokenizer=_load_processor(pack, CLIPTokenizer, folder / "tokenizer"),
        text_encoder=load(CLIPTextModel, folder / "text_encoder"),
        unet=unet.to(memory_format=torch.channels_last),
        vae=vae.to(memory_format=torch.channels_last),
        noise_scheduler_config=read_json(pack, folder / "scheduler" / "scheduler_config.json"),
        safety_checker=load(StableDiffusionSafetyChecker, folder / "safety_checker") if has_safety_checker else None,
        feature_extractor=(
            _load_processor(pack, CLIPImageProcessor, folder / "feature_extractor") if has_safety_checker else None
        ),
    )


def is_inpainting(unet: Any, vae: Any) -> bool:
    """Return whether a UNet's inputs are latents, a mask, and the latents of the picture outside of it."""
    return bool(unet.config.in_channels == 2 * vae.config.latent_channels + 1)


def check_architecture(pack: ModelPack, part: Path, unet: Any, vae: Any) -> None:
    """Raise PackError for UNets that the engine does not run; `part` is the folder or file that they are from."""
    config = part if part.is_file() else part / "unet" / "config.json"
    if unet.config.time_cond_proj_dim is not None:
        raise pack.fault(config, "is of a guidance-distilled model, which is not supported")
    if unet.config.in_channels != vae.config.latent_channels and not is_inpainting(unet, vae):
        fault = "is of a model for another task: its UNet gets neither latents alone nor those of inpainting"
        raise pack.fault(config, f"{fault}. Take the base model")


def _load_single_file(pack: ModelPack, path: Path, device: torch.device, dtype: torch.dtype) -> DiffusionComponents:
    """Load a single-file checkpoint, with the first tokenizer at hand that has its vocabulary."""
    checkpoint = CheckpointFile(pack, path)
    text_encoder, unet, vae = checkpoint.load(device, dtype)
    check_architecture(pack, path, unet, vae)
    folders = (checkpoint.folder / "tokenizer", pack.folder / "diffusion" / "tokenizer", pack.part("clip"))
    return DiffusionComponents(
        tokenizer=_find_tokenizer(pack, path, folders, cast(Any, text_encoder).config.vocab_size),
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        noise_scheduler_config=checkpoint.config("scheduler"),
        safety_checker=None,
        feature_extractor=None,
    )


def _find_tokenizer(pack: ModelPack, path: Path, folders: Sequence[Path], vocab_size: int) -> Any:
    for folder in folders:
        if folder.is_dir():
            tokenizer = _load_processor(pack, CLIPTokenizer, folder)
            if len(tokenizer) == vocab_size:
                return tokenizer
    raise pack.fault(
        path,
        f"needs a tokenizer of {vocab_size} tokens: put the folder `tokenizer` of a Stable Diffusion 1.x into a folder "
        f"{path.stem} beside the file, or fetch the pack sd15",
    )


def reload_network(pack: ModelPack, name: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Load `unet` or `text_encoder` of the diffusion part once more, as the library builds it; verifies no hashes.

    Raises:
        PackError: The files are no longer those that were loaded.
    """
    part = pack.part("diffusion")
    if part.is_file():
        file = CheckpointFile(pack, part)
        return file.load_unet(device, dtype) if name == "unet" else file.load_text_encoder(device, dtype)
    model_class = UNet2DConditionModel if name == "unet" else CLIPTextModel
    model: nn.Module = _ModelLoader(pack, device, dtype)(model_class, part / name)
    return model.to(memory_format=torch.channels_last) if name == "unet" else model


def load_clip(pack: ModelPack, device: torch.device, dtype: torch.dtype = torch.float32) -> ClipComponents:
    """Load CLIP.

    Raises:
        PackError: A file is missing, broken, or does not fit the architecture; the message names it.
    """
    folder = verify_part(pack, "clip")
    return ClipComponents(
        model=_ModelLoader(pack, device, dtype)(CLIPModel, folder),
        processor=_load_processor(pack, CLIPProcessor, folder),
        weights_sha256=sha256_of(find_weights(pack, folder)),
    )


def load_classifier(pack: ModelPack, device: torch.device, dtype: torch.dtype = torch.float32) -> ClassifierComponents:
    """Load the classifier with the names of its classes.

    Raises:
        PackError: A file is missing, broken, or does not fit the architecture; the message names it.
    """
    folder = verify_part(pack, "classifier")
    architecture, preprocessing, classes = _read_resnet_config(pack, folder)
    model = _load_resnet(pack, folder, architecture, num_classes=len(classes))
    return ClassifierComponents(
        model=model.to(device, dtype),
        preprocess=preprocessing.transform(),
        preprocessing=preprocessing,
        architecture=architecture,
        classes=classes,
    )


def load_backbone(pack: ModelPack, device: torch.device, dtype: torch.dtype = torch.float32) -> BackboneComponents:
    """Load the network that extracts features for linear probes: the backbone, or else the pack's classifier.

    Raises:
        PackError: A file is missing, broken, or does not fit the architecture; the message names it.
    """
    folder = verify_part(pack, "backbone" if pack.part("backbone").is_dir() else "classifier")
    architecture, preprocessing, _ = _read_resnet_config(pack, folder)
    model = _load_resnet(pack, folder, architecture, num_classes=None)
    return BackboneComponents(
        model=model.to(device, dtype),
        preprocess=preprocessing.transform(),
        preprocessing=preprocessing,
        architecture=architecture,
        num_features=NUM_FEATURES[architecture],
        weights_sha256=sha256_of(folder / "model.safetensors"),
    )


class _ModelLoader:
    """Loads models of diffusers and transformers, which both have `from_pretrained`."""

    def __init__(self, pack: ModelPack, device: torch.device, dtype: torch.dtype) -> None:
        disable_progress_bar()  # a server has no terminal
        self._pack = pack
        self._device = device
        self._dtype = dtype

    def __call__(self, model_class: Any, folder: Path) -> Any:
        """Load one model in eval mode; raises PackError unless the file has every weight of it."""
        weights = find_weights(self._pack, folder)
        try:
            model, report = model_class.from_pretrained(
                folder,
                variant="fp16" if weights.name.endswith(".fp16.safetensors") else None,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=self._dtype,
            )
        except LOADING_ERRORS as error:
            raise self._pack.fault(weights, "cannot be loaded: it is broken or of another architecture") from error
        if report["missing_keys"] or report["mismatched_keys"] or report["error_msgs"]:
            raise self._pack.fault(weights, "does not have all the weights of its architecture")
        return model.eval().requires_grad_(False).to(self._device)


def find_weights(pack: ModelPack, folder: Path) -> Path:
    """Find a model's file; the half-precision variant where it exists; raises PackError where there is none."""
    candidates = sorted(folder.glob("*.fp16.safetensors")) + sorted(folder.glob("*.safetensors"))
    if not candidates:
        raise pack.fault(folder / "*.safetensors", "is missing")
    return candidates[0]


def _load_processor(pack: ModelPack, processor_class: Any, folder: Path) -> Any:
    try:
        return processor_class.from_pretrained(folder, local_files_only=True)
    except LOADING_ERRORS as error:
        raise pack.fault(folder, "cannot be loaded: files are missing or broken") from error


def _load_resnet(pack: ModelPack, folder: Path, architecture: str, num_classes: int | None) -> nn.Module:
    """Build a ResNet around its state dict; without `fc` when `num_classes` is None."""
    path = folder / "model.safetensors"
    # on "meta": no time and no random numbers for weights that are replaced
    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=num_classes or 1)
    try:
        weights = load_file(path)
        if num_classes is None:
            model.fc = nn.Identity()
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
        model.load_state_dict(weights, strict=True, assign=True)
    except FileNotFoundError as error:
        raise pack.fault(path, "is missing") from error
    except LOADING_ERRORS as error:
        raise pack.fault(path, f"cannot be loaded: it is broken or not a {architecture} of these classes") from error
    return model.eval().requires_grad_(False)


def _read_resnet_config(pack: ModelPack, folder: Path) -> tuple[str, Preprocessing, tuple[str, ...]]:
    """Read architecture, preprocessing and class names; the last two from torchvision's weights where it names them."""
    path = folder / "config.json"
    config = read_json(pack, path)
    try:
        classes = config.get("classes", ())
        weights = torchvision.models.get_weight(classes["weights"]) if isinstance(classes, dict) else None
        names = tuple(weights.meta["categories"] if weights else classes)
        preprocessing = (
            Preprocessing.from_weights(weights)
            if weights and "preprocessing" not in config
            else Preprocessing.from_config(config["preprocessing"])
        )
        if config["architecture"] not in NUM_FEATURES or not all(isinstance(name, str) for name in names):
            raise ValueError("The architecture is unknown or a class name is not a string.")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise pack.fault(path, "does not describe a classifier of a known architecture") from error
    return str(config["architecture"]), preprocessing, names


def read_json(pack: ModelPack, path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; raises PackError where there is none."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise pack.fault(path, "is missing" if is_missing else "cannot be read") from error
    except ValueError as error:
        raise pack.fault(path, "is not JSON") from error
    if not isinstance(content, dict):
        raise pack.fault(path, "is not a JSON object")
    return content
