"""Whether this node is ready, and what it can do.

Runs on pool threads of the API process; answers from memory, but for one query to the database.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_args

from sqlalchemy import text

from app import __version__
from app.db.session import Database
from app.engine.engine import Engine
from app.engine.scheduling.device_time import Work
from app.errors import AppError
from app.image_spec import SIDE_MULTIPLE, NoiseSchedulerName
from app.metrics.node import EngineState
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import ListedModel
from app.modelpacks.pack import ModelPack
from app.schemas.backbones import BackboneRead, BackbonesRead, PreprocessingRead
from app.schemas.packs import PackOrigin, PackQuality, PackRead
from app.schemas.service import (
    Capabilities,
    DrawingMode,
    DrawingModel,
    EmbeddingRead,
    Limits,
    LoadingState,
    LoraRead,
    ModelState,
    NodeModel,
    SpeedDefaults,
    SpeedMeasurement,
    SpeedRead,
)
from app.services.images.spec import SizeRules
from app.services.inference.backbone_descriptions import BackboneDescription
from app.services.inference.backbones import Backbones
from app.services.inference.loaded import DIFFUSION
from app.services.inference.service import Inference
from app.services.limits import Limits as NodeLimits
from app.step_rows import TimestepSpacing

# Of a guided step of one image.
GUIDED_ROWS = 2


class NodeStatus:
    """State and capabilities of the node."""

    def __init__(self, db: Database, inference: Inference, limits: NodeLimits, has_socket: Callable[[], bool]) -> None:
        """Wire the service; `has_socket` returns whether the node's worker can still reach the engine."""
        self._db = db
        self._inference = inference
        self._limits = limits
        self._has_socket = has_socket

    def models(self) -> dict[str, ModelState]:
        """Return each model's state of loading, and of those that are ready how they serve."""
        inference, notes = self._inference, self._inference.notes()
        return {
            name: ModelState(
                state=status.state,
                detail=status.detail,
                note=notes.get(name),
                expected_wait_s=round(inference.expected_wait_s(name), 3) if status.state == "ready" else None,
            )
            for name, status in inference.status().items()
        }

    def missing(self) -> list[str]:
        """Return what keeps the node from being ready; empty when it is."""
        found = [
            f"{name}: {state.detail or state.state}" for name, state in self.models().items() if state.state != "ready"
        ]
        if not self._inference.is_alive:
            found.append("engine: the device thread has ended; restart the service")
        if not self._has_socket():
            found.append("worker: it cannot reach the engine, the node's socket is gone or another's; restart the node")
        try:
            with self._db.snapshot() as session:
                session.execute(text("SELECT 1"))
        except AppError as error:
            found.append(f"database: {error.detail}")
        return found

    def backbones(self) -> BackbonesRead:
        """Return all backbones; `/readyz` does not depend on those that are loaded on demand."""
        backbones = self._inference.backbones
        return BackbonesRead(items=[_read_backbone(backbones, name) for name in backbones.names()])

    def capabilities(self) -> Capabilities:
        """Return what this node can do.

        Raises:
            ModelNotReady: The pack or its classifier is not loaded.
        """
        inference, limits = self._inference, self._limits
        pack, runtime = inference.pack, inference.runtime
        return Capabilities(
            version=__version__,
            pack=PackRead(
                name=pack.name,
                revision=pack.revision,
                licence=pack.licence,
                native_size=pack.native_size,
                classifier_classes=inference.classes,
                total_bytes=pack.total_bytes,
                files=len(pack.files),
                quality=PackQuality.model_validate(dict(pack.quality)),
                made=PackOrigin.model_validate(dict(pack.made)),
            ),
            models=self._node_models(),
            device=runtime.device,
            dtype=runtime.dtype,
            noise_schedulers=list(get_args(NoiseSchedulerName)),
            default_noise_scheduler=pack.default_noise_scheduler,
            speeds=_read_speeds(pack, inference.sizes),
            timestep_spacings=list(get_args(TimestepSpacing)),
            loras=_read_loras(inference.adapters),
            embeddings=_read_embeddings(inference.adapters),
            limits=Limits(
                prompt_chars=limits.prompt_chars,
                num_inference_steps=limits.num_inference_steps,
                num_images_per_prompt=limits.num_images_per_prompt,
                min_side=pack.min_side,
                max_side=pack.max_side,
                side_multiple=SIDE_MULTIPLE,
                work_pixel_steps=limits.work_pixel_steps,
                dataset_images=limits.dataset_images,
                recipe_bytes=limits.recipe_bytes,
                upload_bytes=limits.upload_bytes,
                upload_pixels=limits.upload_pixels,
                queue_size=limits.queue_size,
                queued_jobs=limits.queued_jobs,
            ),
            versions=runtime.versions,
        )

    def _node_models(self) -> dict[str, NodeModel]:
        inference, states = self._inference, self.models()
        sizes = inference.sizes
        models = {name: NodeModel(**state.model_dump(), drawing=None) for name, state in states.items()}
        models[DIFFUSION].drawing = DrawingModel(
            name=sizes.name,
            is_default=True,
            fits=states[DIFFUSION].state != "failed",
            is_loaded=states[DIFFUSION].state == "ready",
            prediction_type=None,
            num_bytes=None,
            **_rules_of(inference, sizes, None),
        )
        return models | {model.name: _read_listed(inference, model, sizes) for model in inference.drawing.listed}


def _read_listed(inference: Inference, model: ListedModel, sizes: SizeRules) -> NodeModel:
    """Return what is known of a diffusion model beside the default one."""
    detail = model.fault or inference.models.failure(model.name)
    is_loaded = inference.models.loaded(model.name) is not None
    drawing = DrawingModel(
        name=model.name,
        is_default=False,
        fits=detail is None,
        is_loaded=is_loaded,
        prediction_type=model.prediction_type,
        num_bytes=model.skeleton.num_bytes if model.skeleton else None,
        **_rules_of(inference, None if model.fault else sizes.of(model.name), model.name),
    )
    note = None if detail or is_loaded else "It is loaded when a request names it."
    state: LoadingState = "failed" if detail else "ready"
    return NodeModel(state=state, detail=detail, note=note, expected_wait_s=None, drawing=drawing)


def _rules_of(inference: Inference, rules: SizeRules | None, model: str | None) -> dict[str, Any]:
    """Return what a diffusion model draws; of one that cannot be used, nothing."""
    if rules is None:
        nothing: dict[str, Any] = dict.fromkeys(("native_size", "min_side", "max_side", "default_noise_scheduler"))
        lists: dict[str, Any] = {name: [] for name in ("modes", "noise_schedulers", "speeds", "loras", "embeddings")}
        return nothing | lists | {"step_ms": None}
    shape = (rules.native // SIDE_MULTIPLE, rules.native // SIDE_MULTIPLE)
    guided_step = Work(shape, row_steps=GUIDED_ROWS, together=GUIDED_ROWS, network=model or "")
    step_s = inference.estimate(DIFFUSION, [guided_step]).seconds
    return {
        "native_size": rules.native,
        "min_side": rules.min_side,
        "max_side": rules.max_side,
        "modes": ["inpainting"] if rules.needs_mask else list(get_args(DrawingMode.__value__)),
        "default_noise_scheduler": rules.default_scheduler,
        "noise_schedulers": list(get_args(NoiseSchedulerName)),
        "speeds": list(rules.speeds),
        "loras": [name for name, fault in (rules.loras or {}).items() if fault is None],
        "embeddings": [name for name, fault in (rules.embeddings or {}).items() if fault is None],
        "step_ms": None if step_s is None else round(1000 * step_s, 3),
    }


def engine_state(engine: Engine, inference: Inference) -> EngineState:
    """Return the engine at this moment, for the metrics; from memory, but for the sizes of some files."""
    ready = {name: status.state == "ready" for name, status in engine.status().items()}
    return EngineState(
        is_alive=engine.is_alive,
        waiting=[(each.model, each.priority.name.lower(), each.number, each.oldest_s) for each in engine.waiting()],
        in_flight=engine.in_flight(),
        ready=ready,
        model_bytes={name: inference.weight_bytes(name) for name, is_ready in ready.items() if is_ready},
        backbones=inference.backbones.loaded(),
        weights=inference.weights(),
    )


def build_facts(inference: Inference, pack_name: str) -> dict[str, str]:
    """Return version, pack and device of the node, by the labels of the metrics' `build_info`."""
    try:
        revision = inference.pack.revision
    except AppError:
        revision = ""
    runtime = inference.runtime
    return {
        "version": __version__,
        "pack": pack_name,
        "pack_revision": revision,
        "device": runtime.device,
        "dtype": runtime.dtype,
    }


def _read_speeds(pack: ModelPack, sizes: SizeRules) -> list[SpeedRead]:
    """Return the speeds with what was measured of them on the pack."""
    measured: Mapping[str, Any] = pack.quality.get("speeds", {})
    few_step = sizes.few_step
    return [
        SpeedRead(
            name=name,
            defaults=SpeedDefaults(**asdict(few_step)) if name == "fast" and few_step else None,
            measured=[SpeedMeasurement.model_validate(entry) for entry in measured.get(name, [])],
        )
        for name in sizes.speeds
    ]


def _read_loras(known: AdapterFolder | None) -> list[LoraRead]:
    return [
        LoraRead(
            name=entry.name,
            num_bytes=entry.num_bytes,
            fits=entry.file is not None,
            detail=entry.fault,
            rank=entry.file.rank if entry.file else None,
        )
        for entry in (known.loras.values() if known else ())
    ]


def _read_embeddings(known: AdapterFolder | None) -> list[EmbeddingRead]:
    return [
        EmbeddingRead(
            name=entry.name,
            num_bytes=entry.num_bytes,
            fits=entry.file is not None,
            detail=entry.fault,
            token=entry.file.token if entry.file else None,
            num_vectors=entry.file.num_vectors if entry.file else None,
        )
        for entry in (known.embeddings.values() if known else ())
    ]


def _read_backbone(backbones: Backbones, name: str) -> BackboneRead:
    """Return what is known of one backbone; the reason where its files cannot be used."""
    state, detail = backbones.state(name)
    found: BackboneDescription | None = None
    try:
        found = backbones.describe(name)
    except AppError as error:  # the pack is still loading, or a folder is broken or gone since it was listed
        if state in ("ready", "loadable"):
            state, detail = "failed", error.detail
    facts = None if found is None else found.facts
    speed = backbones.images_per_s(name)
    return BackboneRead(
        name=name,
        state=state,
        detail=detail,
        architecture=facts.architecture if facts else None,
        trained_on=found.trained_on if found else None,
        input_size=found.input_side if found else None,
        num_features=found.num_features if found else None,
        num_parameters=found.num_parameters if found else None,
        num_bytes=found.num_bytes if found else None,
        weights_sha256=facts.weights_sha256 if facts else None,
        num_classes=len(found.classes) if found and found.classes else None,
        images_per_s=None if speed is None else round(speed, 1),
        preprocessing=PreprocessingRead(**facts.preprocessing) if facts else None,
    )
