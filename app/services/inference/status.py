"""Whether this node is ready, and what it can do.

Runs on pool threads of the API process; answers from memory, but for one query to the database.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from sqlalchemy import text

from app import __version__
from app.db.session import Database
from app.engine.engine import Engine
from app.errors import AppError
from app.image_spec import SIDE_MULTIPLE, NoiseSchedulerName
from app.metrics.node import EngineState
from app.schemas.backbones import BackboneRead, BackbonesRead, PreprocessingRead
from app.schemas.packs import PackOrigin, PackQuality, PackRead
from app.schemas.service import Capabilities, Limits, ModelState, SpeedMeasurement, SpeedRead
from app.services.inference.backbone_descriptions import BackboneDescription
from app.services.inference.backbones import Backbones
from app.services.inference.service import Inference
from app.services.limits import Limits as NodeLimits
from app.step_rows import TimestepSpacing


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
        measured: Mapping[str, Any] = pack.quality.get("speeds", {})
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
            models=self.models(),
            device=runtime.device,
            dtype=runtime.dtype,
            noise_schedulers=list(get_args(NoiseSchedulerName)),
            default_noise_scheduler=pack.default_noise_scheduler,
            speeds=[
                SpeedRead(
                    name=name, measured=[SpeedMeasurement.model_validate(entry) for entry in measured.get(name, [])]
                )
                for name in inference.sizes.speeds
            ],
            timestep_spacings=list(get_args(TimestepSpacing)),
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
