"""The diffusion models beside the default one: listed at the start, and loaded into the engine when they are used.

Imports neither HTTP nor SQL. The engine's loader thread lists; a thread of `Models` loads and drops.
"""

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from app.engine.diffusion.calibration import Calibration
from app.engine.diffusion.denoiser import FIRST_USE_S, ForwardSize
from app.engine.diffusion.models import DiffusionModels
from app.engine.diffusion.options import DenoisingOptions, RowPadding, options_for
from app.engine.diffusion.previews import LatentColours
from app.engine.diffusion.runner import DiffusionRunner
from app.engine.engine import Engine
from app.engine.request import Shape
from app.engine.scheduling.row_budget import RowBudget
from app.image_spec import SIDE_MULTIPLE
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import ListedModel, list_model, revision_of
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.lora_file import AdapterFault
from app.modelpacks.pack import ModelPack, PackError
from app.services.images.previews import find_colours
from app.services.inference.diffusion.calibrating import calibrate, measure_again_when_idle
from app.services.inference.diffusion.choice import DiffusionChoice
from app.services.inference.diffusion.model_adapters import ModelAdapters, base_models
from app.services.inference.diffusion.models import LoadedModel
from app.services.inference.loaded import DIFFUSION

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Measured:
    """What models whose networks are built alike have in common.

    Attributes:
        side: In pixels, at which steps were measured.
        seconds: Of a step, by rows; None: not measured yet.
        paddings: Which forwards are batch-invariant.
        folder: The adapters as they fit these networks; None: there are none.
        is_disturbed: Whether other processes had the cores meanwhile; the next model that is loaded is measured too.
    """

    side: int
    seconds: Mapping[int, float] | None
    paddings: dict[ForwardSize, RowPadding]
    folder: AdapterFolder | None
    is_disturbed: bool = False


class OtherModels:
    """Loads the models beside the default one."""

    def __init__(
        self,
        choice: DiffusionChoice,
        engine: Engine,
        models: DiffusionModels,
        base: ModelPack,
        measured: dict[str, Measured],
    ) -> None:
        """List the models.

        Args:
            choice: Names them.
            engine: Gets what their steps cost.
            models: Gets their runners.
            base: The pack of the default model.
            measured: What is known of the default model, by its architecture.
        """
        self._choice, self._engine, self._models, self._measured = choice, engine, models, measured
        self._own = next(iter(measured.values()))
        self._colours: dict[str, LatentColours | None] = {}
        self._files: dict[str, dict[str, str]] = {}  # once read; files that change are not loaded again
        self._hashing = threading.Lock()
        self.listed: Mapping[str, ListedModel] = {
            name: self._within_bound(list_model(name, path, base, choice.dtype)) for name, path in choice.models.items()
        }
        for model in self.listed.values():
            self._prepare(model)

    def folder(self, name: str) -> AdapterFolder | None:
        """Return the adapters as they fit a model; None without a folder of them."""
        model = self.listed.get(name)
        return self._measured[model.skeleton.architecture].folder if model and model.skeleton else None

    def revision(self, name: str) -> str:
        """Return the version of a usable model's weights; hashes them the first time, which takes seconds. Any thread.

        Raises:
            PackError: Its files are others than those that were listed.
        """
        model = self.listed[name]
        if model.pack is None:
            raise PackError(model.fault or "")
        return model.pack.revision or revision_of(self._hashes(model))

    def load(self, name: str) -> LoadedModel:
        """Load a usable model; raises PackError where its files are broken, or others than those that were listed."""
        model, choice = self.listed[name], self._choice
        if model.pack is None or model.skeleton is None:
            raise PackError(model.fault or "")
        model.check_unchanged()
        files = self._hashes(model)
        parts = load_diffusion(model.pack, choice.device, choice.dtype)
        _keep_in_memory(parts)
        model.check_unchanged()
        options = options_of(choice, compiles=False)
        runner = make_runner(parts, choice, options)
        self._measure(self._measured[model.skeleton.architecture], model.pack, runner, options)
        if name not in self._colours:
            self._colours[name] = find_colours(model.pack, choice.models_dir, runner.fit_colours)
        self._models.put(name, runner)
        return LoadedModel(
            name,
            revision=model.pack.revision or revision_of(files),
            files=files,
            adapters=self._adapters(model, model.pack, parts, runner),
            colours=self._colours[name],
        )

    def use(self, measured: Measured, found: Calibration) -> None:
        """Take what was measured for all models whose networks are built alike; any thread."""
        measured.seconds, measured.is_disturbed = found.seconds, found.is_disturbed
        self._set_budgets(measured)

    def drop(self, name: str) -> None:
        """Remove a model, and free its memory."""
        self._models.drop(name)
        gc.collect()  # a runner and its forwards refer to each other; what was loaded at the start is exempt

    def _hashes(self, model: ListedModel) -> dict[str, str]:
        with self._hashing:
            if model.name not in self._files:
                model.check_unchanged()
                self._files[model.name] = model.hash_files()
            return self._files[model.name]

    def _within_bound(self, model: ListedModel) -> ListedModel:
        """Return the model, with a fault if it alone exceeds the bound."""
        if model.skeleton is None or model.skeleton.num_bytes <= self._choice.models_bytes:
            return model
        fault = (
            f"Its weights take {model.skeleton.num_bytes // 1_000_000 + 1} MB, and this node keeps at most "
            f"{self._choice.models_bytes // 1_000_000} beside its default model (FOXHOUND_MODELS_MB)."
        )
        logger.warning("The model %s cannot be used. %s", model.name, fault)
        return replace(model, pack=None, skeleton=None, fault=fault)

    def _prepare(self, model: ListedModel) -> None:
        """Tell the engine what a model's steps cost if that is known, and read the adapters for its networks."""
        skeleton, choice = model.skeleton, self._choice
        if skeleton is None or model.pack is None:
            return
        measured = self._measured.get(skeleton.architecture)
        if measured is None:
            folder = choice.loras_dir and AdapterFolder(
                choice.loras_dir, unet=skeleton.unet, text_encoder=skeleton.text_encoder
            )
            measured = Measured(model.pack.native_size, None, {}, folder or None)
            self._measured[skeleton.architecture] = measured
        if measured.seconds is not None:
            self._set_budget(measured, model.name)

    def _measure(self, measured: Measured, pack: ModelPack, runner: DiffusionRunner, options: DenoisingOptions) -> None:
        """Measure networks of a new kind; those of a known one are not measured again."""
        runner.share_paddings(measured.paddings)
        measure_again_when_idle(
            self._engine, runner, pack, options, self._choice, lambda found: self.use(measured, found)
        )
        if measured.seconds is not None and not measured.is_disturbed:
            return
        if self._choice.device.type == "cpu":
            self.use(measured, calibrate(runner, pack, options, self._choice))
        else:
            # Recording here would hold up the device. The engine corrects what is assumed by what it measures.
            measured.side, measured.seconds = self._own.side, self._own.seconds
            self._set_budgets(measured)

    def _set_budgets(self, measured: Measured) -> None:
        for each in self.listed.values():
            if each.skeleton and self._measured[each.skeleton.architecture] is measured:
                self._set_budget(measured, each.name)

    def _set_budget(self, measured: Measured, name: str) -> None:
        costs = step_costs(measured.seconds or {}, measured.side, measured.paddings, self._choice)
        set_row_budget(self._engine, costs, measured.side, network=name)

    def _adapters(
        self, model: ListedModel, pack: ModelPack, parts: DiffusionComponents, runner: DiffusionRunner
    ) -> ModelAdapters | None:
        folder = self.folder(model.name)
        if folder is None:
            return None

        def check() -> None:
            try:
                model.check_unchanged()
            except PackError as error:
                raise AdapterFault(f"The model's files are others by now. {error.detail}") from error

        return ModelAdapters(folder, base_models(pack, parts, self._choice.device, self._choice.dtype, check), runner)


def options_of(choice: DiffusionChoice, *, compiles: bool) -> DenoisingOptions:
    """Return how forwards are taken."""
    return options_for(choice.device, deterministic=choice.deterministic, graphs=choice.gpu_graphs, compiles=compiles)


def make_runner(parts: DiffusionComponents, choice: DiffusionChoice, options: DenoisingOptions) -> DiffusionRunner:
    """Return the runner of loaded parts, whose layers are optimised in place."""
    return DiffusionRunner(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        noise_scheduler_config=parts.noise_scheduler_config,
        safety_checker=parts.safety_checker,
        feature_extractor=parts.feature_extractor,
        device=choice.device,
        options=options,
    )


@dataclass(frozen=True, slots=True)
class MeasuredCosts:
    """What the steps of a model cost.

    Attributes:
        budget: Their rows and seconds.
        first_use: Additional seconds of the first step at a shape.
        curve: Milliseconds by rows, for the log.
    """

    budget: RowBudget
    first_use: Callable[[Shape], float]
    curve: str


def step_costs(
    seconds: Mapping[int, float], side: int, paddings: Mapping[ForwardSize, RowPadding], choice: DiffusionChoice
) -> MeasuredCosts:
    """Return what steps cost.

    Args:
        seconds: Of a step by rows, as measured.
        side: In pixels, at which they were measured.
        paddings: Which forwards are batch-invariant; sizes are added as they are used.
        choice: How the model was loaded.
    """
    is_probed = options_of(choice, compiles=False).needs_probe

    def padding(shape: Shape) -> RowPadding | None:
        return next((found for size, found in list(paddings.items()) if size[:2] == shape), None)

    def forwards(shape: Shape, rows: int) -> Sequence[int]:
        found = padding(shape)
        return (rows,) if found is None else found.forwards(rows)

    def first_use(shape: Shape) -> float:
        return 0.0 if not is_probed or padding(shape) is not None else FIRST_USE_S

    budget = RowBudget(seconds, (side // SIDE_MULTIPLE, side // SIDE_MULTIPLE), forwards=forwards)
    return MeasuredCosts(
        budget, first_use, ", ".join(f"{rows}: {1000 * step_s:.0f}" for rows, step_s in seconds.items())
    )


def set_row_budget(engine: Engine, costs: MeasuredCosts, side: int, network: str = "") -> None:
    """Tell the engine what the steps of a model cost, measured at a side in pixels."""
    budget, shape = costs.budget, (side // SIDE_MULTIPLE, side // SIDE_MULTIPLE)
    engine.set_row_budget(DIFFUSION, budget.rows, budget.seconds, network=network, first_use=costs.first_use)
    of = f" of {network}" if network else ""
    logger.info("A step%s takes up to %d rows (milliseconds by rows: %s).", of, budget.rows(shape), costs.curve)


def _keep_in_memory(parts: DiffusionComponents) -> None:
    """Copy weights that may still be read from their file when they are used: it may be overwritten meanwhile."""
    for model in (parts.unet, parts.text_encoder, parts.vae, parts.safety_checker):
        for parameter in model.parameters() if isinstance(model, torch.nn.Module) else ():
            if parameter.device.type == "cpu":
                parameter.data = parameter.data.clone()
