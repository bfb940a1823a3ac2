"""The backbones of the models that were fine-tuned here: each such model's file holds one of its own.

They are named `model:` and the model's id, and are loaded and evicted as other backbones are. Called by `Backbones`,
from any thread; `load` on its loader thread.
"""

import re
import threading
from pathlib import Path
from typing import Any, Final

import torch

from app.engine.resnet import BackboneRunner
from app.engine.runner import Runner
from app.finetuning.checkpoints import describe_fine_tuned, load_fine_tuned
from app.finetuning.errors import DamagedWeights
from app.finetuning.tensor_files import sha256_of
from app.modelpacks.preprocessing import Preprocessing
from app.node.protocol import FINE_TUNED, BackboneFacts
from app.services.inference.backbone_descriptions import BackboneDescription, BackboneInput
from app.services.inference.backbone_sources import pixel_input, runtime_facts

_NAME: Final = re.compile(rf"{FINE_TUNED}([A-Za-z0-9-]{{1,64}})")


class FineTunedBackbone:
    """The backbone in the file of a fine-tuned model, which never changes."""

    def __init__(self, name: str, path: Path, device: torch.device) -> None:
        """Describe the file; nothing is read yet."""
        self._name, self._path, self._device = name, path, device
        self._lock = threading.Lock()
        self._description: BackboneDescription | None = None

    def describe(self) -> BackboneDescription:
        """Read the header and hash the file, once; raises DamagedWeights."""
        with self._lock:
            if self._description is None:
                self._description = self._read()
            return self._description

    def load(self) -> tuple[Runner, BackboneInput]:
        """Load the backbone; raises DamagedWeights."""
        model = load_fine_tuned(self._path)
        runner = BackboneRunner(model=model.backbone.to(self._device), device=self._device)
        return runner, pixel_input(model.preprocessing.transform(), model.preprocessing)

    def _read(self) -> BackboneDescription:
        try:
            facts, num_bytes = describe_fine_tuned(self._path), self._path.stat().st_size
            preprocessing = Preprocessing.from_config(facts["preprocessing"])
            known = BackboneFacts(
                architecture=str(facts["backbone"]["architecture"]),
                weights_sha256=sha256_of(self._path),
                preprocessing=preprocessing.to_json(),
                name=self._name,
                **runtime_facts(self._device),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedWeights from error
        return BackboneDescription(
            facts=known,
            input_side=preprocessing.crop,
            num_features=None,
            num_parameters=None,
            num_bytes=num_bytes,
            trained_on=None,
        )


class FineTunedSources:
    """Finds the backbone of a fine-tuned model; keeps what it has read of each version of a file."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        """Look in the folder of trained models; None: there are none."""
        self._folder, self._device = folder, device
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Any, FineTunedBackbone]] = {}

    def __call__(self, name: str) -> FineTunedBackbone | None:
        """Return the source of `model:{id}`; None if there is no such model, or it has no backbone of its own."""
        found = _NAME.fullmatch(name)
        if found is None or self._folder is None:
            return None
        path = self._folder / found[1] / "model.safetensors"
        try:
            status = path.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            with self._lock:
                if name not in self._known or self._known[name][0] != version:
                    describe_fine_tuned(path)
                    self._known[name] = version, FineTunedBackbone(name, path, self._device)
                return self._known[name][1]
        except (OSError, DamagedWeights):
            self._known.pop(name, None)
            return None
