"""The backbones of a node: the two of the loaded pack, `photo`, and folders in the layout of timm's hub.

Imports neither HTTP nor SQL. Called by `Backbones`, from any thread; `load` on its loader thread.
"""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch

from app.engine.clip.runner import ClipPayload, ClipPreparation
from app.engine.resnet import BackboneRunner, FeaturePayload
from app.engine.runner import Runner
from app.modelpacks.pack import PackError, sha256_of
from app.modelpacks.photo import PHOTO, ensure_photo
from app.modelpacks.preprocessing import Preprocessing
from app.modelpacks.timm_models import CONFIG, FOLDER, NAME, WEIGHTS, TimmModel, load_timm_model, read_timm_model
from app.node.protocol import BackboneFacts
from app.services.inference.backbone_descriptions import (
    BackboneDescription,
    BackboneInput,
    BackboneSource,
    NetworkFile,
    TrainedOn,
)

CLIP_BACKBONE: Final = "clip"
# Source: the packs' manifests; a part that a local folder replaces may have been trained on anything.
PACK_TRAINED_ON: Final[dict[str, TrainedOn]] = {"demo": "drawings", "sd15": "photographs"}


class TimmBackbone:
    """A folder with one of timm's models."""

    def __init__(
        self, name: str, folder: Path, device: torch.device, prepare: Callable[[Path], None] = lambda _: None
    ) -> None:
        """Describe the folder; nothing is read yet.

        Args:
            name: The backbone's name.
            folder: Its `config.json` and `model.safetensors`.
            device: Where it runs.
            prepare: Makes the folder where it does not exist yet.
        """
        self._name, self._folder, self._device, self._prepare = name, folder, device, prepare
        self._lock = threading.Lock()
        self._known: tuple[object, BackboneDescription, TimmModel] | None = None

    def describe(self) -> BackboneDescription:
        """Read config, sizes and hash, once for each version of the files; raises PackError."""
        return self._read()[0]

    def load(self) -> tuple[Runner, BackboneInput]:
        """Load the model; raises PackError."""
        description, model = self._read()
        parts = load_timm_model(model, self._device)
        head = parts.head if description.classes else None
        runner = BackboneRunner(model=parts.model, device=self._device, head=head)
        return runner, pixel_input(parts.preprocess, model.preprocessing)

    def _read(self) -> tuple[BackboneDescription, TimmModel]:
        with self._lock:
            self._prepare(self._folder)
            version = _version(self._folder)
            if self._known is None or self._known[0] != version:
                model = read_timm_model(self._name, self._folder)
                facts = BackboneFacts(
                    architecture=model.architecture,
                    weights_sha256=sha256_of(self._folder / WEIGHTS),
                    preprocessing=model.preprocessing.to_json(),
                    name=self._name,
                    **runtime_facts(self._device),
                )
                self._known = version, _description(facts, model), model
            return self._known[1], self._known[2]


class FolderSources:
    """Finds the backbones that are loaded on demand; keeps one source for each folder."""

    def __init__(self, models_dir: Path, device: torch.device) -> None:
        """Look below `models_dir`."""
        self._folder = models_dir / FOLDER
        self._device = device
        self._sources: dict[str, BackboneSource] = {
            PHOTO: TimmBackbone(PHOTO, self._folder / PHOTO, device, prepare=ensure_photo)
        }

    def __call__(self) -> Mapping[str, BackboneSource]:
        """Return `photo` and every folder that has both files."""
        found = {PHOTO: self._sources[PHOTO]}
        for name in list_folders(self._folder):
            if name not in self._sources:
                self._sources[name] = TimmBackbone(name, self._folder / name, self._device)
            found[name] = self._sources[name]
        return found


def list_folders(folder: Path) -> list[str]:
    """Return the names of the subfolders that hold a backbone, sorted."""
    try:
        entries = sorted(path.name for path in folder.iterdir())
    except OSError:  # nothing was fetched or converted yet
        return []
    return [
        name
        for name in entries
        if NAME.fullmatch(name) and all((folder / name / file).is_file() for file in (CONFIG, WEIGHTS))
    ]


def runtime_facts(device: torch.device) -> dict[str, str]:
    """Return what features depend on besides weights and images: a backbone's forward is float32 on every device."""
    return {"device": device.type, "dtype": "float32", "torch": str(torch.__version__)}


def pixel_input(preprocess: Callable[..., torch.Tensor], preprocessing: Preprocessing) -> BackboneInput:
    """Return the input of a network that takes pixels and returns features."""
    return BackboneInput(preprocess, preprocessing.crop_view, FeaturePayload, lambda features: features)


def clip_input(prepare: ClipPreparation, preprocessing: Preprocessing) -> BackboneInput:
    """Return the input of CLIP's image tower; its features are the image's embedding, of length 1."""
    texts = prepare.tokenize([""])  # the engine's CLIP compares; its embedding of the empty text is cached
    return BackboneInput(
        prepare.pixels,
        preprocessing.crop_view,
        partial(ClipPayload, texts=texts),
        lambda scores: scores.image_embed,
    )


def training_pictures_of(pack: str, *, is_override: bool) -> TrainedOn | None:
    """Return what the pictures were that a pack's part was trained on."""
    return None if is_override else PACK_TRAINED_ON.get(pack)


def _description(facts: BackboneFacts, model: TimmModel) -> BackboneDescription:
    return BackboneDescription(
        facts=facts,
        input_side=model.preprocessing.crop,
        num_features=model.num_features,
        num_parameters=model.num_parameters,
        num_bytes=model.num_bytes,
        trained_on="photographs" if model.trained_on_photographs else None,
        classes=model.classes,
        network=NetworkFile("timm", model.architecture, model.options, model.folder / WEIGHTS),
    )


def _version(folder: Path) -> object:
    """Identify the files as they are now."""
    try:
        return tuple(
            (s.st_ino, s.st_size, s.st_mtime_ns) for s in ((folder / file).stat() for file in (CONFIG, WEIGHTS))
        )
    except OSError as error:
        raise PackError(f"{folder.name}: {CONFIG} or {WEIGHTS} is missing.") from error
