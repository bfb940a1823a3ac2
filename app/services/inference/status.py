"""Whether this node is ready, and what it can do.

Runs on pool threads of the API process; answers from memory, but for one query to the database.
"""

from collections.abc import Callable
from typing import get_args

from sqlalchemy import text

from app import __version__
from app.db.session import Database
from app.errors import AppError
from app.image_spec import SIDE_MULTIPLE, NoiseSchedulerName
from app.schemas.backbones import BackbonesRead
from app.schemas.packs import PackOrigin, PackQuality, PackRead
from app.schemas.service import Capabilities, Limits, ModelState
from app.services.inference.listing import read_backbone
from app.services.inference.service import Inference
from app.services.limits import Limits as NodeLimits


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
        return BackbonesRead(items=[read_backbone(backbones, name) for name in backbones.names()])

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
            models=self.models(),
            device=runtime.device,
            dtype=runtime.dtype,
            noise_schedulers=list(get_args(NoiseSchedulerName)),
            default_noise_scheduler=pack.default_noise_scheduler,
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
