"""Adapter sets of one loaded diffusion model, as `Adapters` loads them.

Imports neither HTTP nor SQL. A thread of `Adapters` calls it.
"""

from collections.abc import Callable, Mapping

import torch

from app.engine.diffusion.runner import DiffusionRunner
from app.image_spec import AdapterSet
from app.modelpacks.adapters import AdapterFolder, BaseModels
from app.modelpacks.loading import DiffusionComponents, reload_network
from app.modelpacks.pack import ModelPack


class ModelAdapters:
    """Adapter sets of one loaded diffusion model."""

    def __init__(self, folder: AdapterFolder, base: BaseModels, runner: DiffusionRunner) -> None:
        """Load no set yet."""
        self.folder = folder
        self._base = base
        self._runner = runner
        self._pinned: dict[AdapterSet, Mapping[str, str]] = {}

    def pin(self, adapters: AdapterSet) -> None:
        """Load a set that always stays and counts as part of the model; before the first request."""
        self._pinned[adapters] = self.load(adapters)

    def num_bytes(self, adapters: AdapterSet) -> int:
        """Return about how many bytes of weights a set adds; raises AdapterFault for one that cannot be used."""
        return 0 if adapters in self._pinned else self.folder.num_bytes(adapters)

    def load(self, adapters: AdapterSet) -> Mapping[str, str]:
        """Load a set into the engine's model and return the SHA-256 of its files; raises AdapterFault."""
        if adapters in self._pinned:
            return self._pinned[adapters]
        models = self.folder.build(adapters, self._base)
        self._runner.put_variant(
            adapters,
            tokenizer=models.tokenizer,
            text_encoder=models.text_encoder,
            unet=models.unet,
            rewrite=models.rewrite,
        )
        return models.sha256

    def drop(self, adapters: AdapterSet) -> None:
        """Forget a set, unless it always stays."""
        if adapters not in self._pinned:
            self._runner.drop_variant(adapters)


def base_models(
    pack: ModelPack,
    parts: DiffusionComponents,
    device: torch.device,
    dtype: torch.dtype,
    check: Callable[[], None] = lambda: None,
) -> BaseModels:
    """Return the models that adapters are added to, and how those are read again.

    Args:
        pack: Where they come from.
        parts: The loaded ones.
        device: Of the models.
        dtype: Of the models.
        check: Called before files are read; raises AdapterFault where they are others by now.
    """

    def reload(name: str) -> torch.nn.Module:
        check()
        return reload_network(pack, name, device, dtype)

    return BaseModels(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        reload_unet=lambda: reload("unet"),
        reload_text_encoder=lambda: reload("text_encoder"),
    )
