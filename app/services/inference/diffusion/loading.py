"""Loads and measures the default diffusion model of a node, and lists those beside it.

Imports neither HTTP nor SQL. The engine's loader thread calls it.
"""

from pathlib import Path

from app.engine.diffusion.calibration import Calibration
from app.engine.diffusion.models import DiffusionModels
from app.engine.engine import Engine
from app.engine.runner import Runner
from app.image_spec import AdapterSet
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import architecture_of
from app.modelpacks.loading import DiffusionComponents, is_inpainting, load_diffusion
from app.modelpacks.lora_file import AdapterFault
from app.modelpacks.pack import ModelPack, verify_file
from app.services.images.previews import find_colours
from app.services.inference.diffusion.calibrating import calibrate, measure_again_when_idle
from app.services.inference.diffusion.choice import DiffusionChoice
from app.services.inference.diffusion.model_adapters import ModelAdapters, base_models
from app.services.inference.diffusion.other_models import (
    Measured,
    OtherModels,
    make_runner,
    options_of,
    set_row_budget,
    step_costs,
)
from app.services.inference.loaded import LoadedFacts


class DiffusionLoad:
    """Loads the diffusion model of a pack into an engine, and lists those beside it."""

    def __init__(self, choice: DiffusionChoice, facts: LoadedFacts, engine: Engine) -> None:
        """Load nothing yet."""
        self._choice = choice
        self._facts = facts
        self._engine = engine

    def __call__(self, pack: ModelPack) -> Runner:
        """Load and measure the model, and read the folder of adapters."""
        choice = self._choice
        parts = load_diffusion(pack, choice.device, choice.dtype)
        # Before the runner optimises layers, whose names are then others.
        folder = _read_adapters(pack, choice.loras_dir, parts)
        architecture = architecture_of(parts.unet, parts.text_encoder, parts.vae)
        self._facts.needs_mask = is_inpainting(parts.unet, parts.vae)
        options = options_of(choice, compiles=choice.gpu_compile)
        runner = make_runner(parts, choice, options)
        found = calibrate(runner, pack, options, choice)
        own = Measured(pack.native_size, found.seconds, runner.share_paddings(), None)
        self._set_budget(own)
        self._facts.preview_colours = find_colours(pack, choice.models_dir, runner.fit_colours)
        if folder:
            adapters = ModelAdapters(folder, base_models(pack, parts, choice.device, choice.dtype), runner)
            if pack.few_step:
                adapters.pin(AdapterSet(is_few_step=True))
            self._facts.adapters = adapters
        models = DiffusionModels(runner)
        own.folder = folder
        others = OtherModels(choice, self._engine, models, pack, {architecture: own})
        self._facts.models = others

        def use(calibration: Calibration) -> None:
            others.use(own, calibration)
            self._set_budget(own)

        measure_again_when_idle(self._engine, runner, pack, options, choice, use)
        return models

    def _set_budget(self, own: Measured) -> None:
        costs = step_costs(own.seconds or {}, own.side, own.paddings, self._choice)
        set_row_budget(self._engine, costs, own.side)


def _read_adapters(pack: ModelPack, folder: Path | None, parts: DiffusionComponents) -> AdapterFolder | None:
    """Return the adapters of a node, None without any; raises PackError for few-step weights that cannot be used."""
    if folder is None and pack.few_step is None:
        return None
    few_step = None
    if pack.few_step is not None:
        verify_file(pack, pack.few_step.file)
        few_step = pack.folder / pack.few_step.file.path
    try:
        return AdapterFolder(folder, unet=parts.unet, text_encoder=parts.text_encoder, few_step=few_step)
    except AdapterFault as error:
        raise pack.fault(few_step or pack.folder, "does not fit the UNet") from error
