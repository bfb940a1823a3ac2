"""What each diffusion model of a node draws, and which LoRAs and embeddings fit it: for the checks of requests.

Imports neither HTTP nor SQL. Answers from memory; any thread may call it.
"""

from collections.abc import Sequence
from dataclasses import replace

from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import ListedModel
from app.modelpacks.pack import ModelPack
from app.services.images.spec import SizeRules
from app.services.inference.diffusion.adapters import Adapters
from app.services.inference.loaded import LoadedFacts


class DrawingRules:
    """The rules of the default model and of those beside it."""

    def __init__(self, facts: LoadedFacts, adapters: Adapters) -> None:
        """Read facts as they become known."""
        self._facts = facts
        self._adapters = adapters

    @property
    def listed(self) -> Sequence[ListedModel]:
        """The models beside the default one, also those that cannot be used; none until they are listed."""
        known = self._facts.models
        return () if known is None else tuple(known.listed.values())

    def folder(self, model: str | None = None) -> AdapterFolder | None:
        """Return the LoRAs and embeddings as they fit a model; None is the default one.

        Returns:
            None without a folder of them, and until they are read.
        """
        models, own = self._facts.models, self._facts.adapters
        if model is not None and models is not None:
            return models.folder(model)
        return None if own is None else own.folder

    def sizes(self, pack: ModelPack) -> SizeRules:
        """Return the rules of all models; `pack` is that of the default one."""
        models = None if self._facts.models is None else {one.name: self._rules_or_fault(one) for one in self.listed}
        rules = replace(self._rules(pack, None), name=pack.name, models=models)
        return replace(rules, needs_mask=self._facts.needs_mask)

    def _rules_or_fault(self, model: ListedModel) -> SizeRules | str:
        if model.pack is None or model.skeleton is None:
            return model.fault or ""
        return replace(self._rules(model.pack, model.name), needs_mask=model.skeleton.needs_mask)

    def _rules(self, pack: ModelPack, model: str | None) -> SizeRules:
        loras, embeddings = self._adapters.faults(self.folder(model))
        sizes = (pack.native_size, pack.min_side, pack.max_side)
        # The few-step weights of other models are not loaded.
        few_step = pack.few_step.settings if model is None and pack.few_step else None
        return SizeRules(*sizes, pack.default_noise_scheduler, loras=loras, embeddings=embeddings, few_step=few_step)
