"""Fine-tuning for the node's worker: an epoch or a finished model is one background request to the engine.

Runs on the API process's event loop; plans are read on threads, and the engine's device thread trains. The engine gets
the model with the first request, so that a node that fine-tunes nothing imports and starts nothing of it.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from app.engine.engine import Engine
from app.engine.request import EngineRequest, Priority
from app.engine.runner import Runner
from app.error_codes import ErrorCode
from app.errors import Conflict, Invalid
from app.finetuning.errors import DamagedWeights
from app.finetuning.plan import Example, FineTunePlan
from app.node.protocol import FINE_TUNED_FILE, FineTuneAsked, FineTunedFile
from app.services.inference.backbone_descriptions import BackboneDescription, NetworkFile
from app.services.inference.backbones import Backbones
from app.storage.files import contained_path
from app.storage.layout import DataFolder
from app.training.rows import one_torch_thread

if TYPE_CHECKING:
    from app.finetuning.runner import EpochPayload, FineTuneRunner, ModelPayload

MODEL = "fine-tune"


class FineTuning:
    """Carries out the epochs of fine-tunings."""

    def __init__(
        self,
        engine: Engine,
        backbones: Backbones,
        folder: DataFolder,
        *,
        device: Callable[[], torch.device],
        decode: Callable[[bytes], Image.Image],
    ) -> None:
        """Wire the service; nothing is started.

        Args:
            engine: Gets the model with the first request.
            backbones: Knows the networks.
            folder: Has the plans, the checkpoints and the pictures.
            device: Returns the engine's device.
            decode: From the bytes of a picture's file to its pixels (RGB).
        """
        self._engine = engine
        self._backbones = backbones
        self._folder = folder
        self._device = device
        self._decode = decode
        self._lock = threading.Lock()
        self._runner: FineTuneRunner | None = None

    def network(self, backbone: str) -> dict[str, Any]:
        """Return what a backbone is built from.

        Raises:
            Invalid: `fine_tune_not_supported`, or there is no such backbone.
        """
        found = network_of(self._backbones.describe(backbone))
        return {"library": found.library, "architecture": found.architecture, "options": dict(found.options)}

    async def epoch(self, asked: FineTuneAsked, *, caller: str = "") -> dict[str, Any]:
        """Train an epoch, behind interactive requests; one that has ended before is returned at once.

        Raises:
            Conflict: The backbone or the checkpoint is another one.
            StorageFull: The checkpoint does not fit.
        """
        from app.finetuning.runner import EpochPayload  # with the first request, as said above

        plan = await asyncio.to_thread(self._plan, asked)
        payload = EpochPayload(plan, self._folder.fine_tuning_folder(asked.job_id), asked.epoch)
        result = await self._run(payload, caller)
        return {"epochs": [asdict(epoch) for epoch in result.progress.epochs], "is_over": result.is_over}

    async def model(self, asked: FineTuneAsked, *, caller: str = "") -> FineTunedFile:
        """Write the finished model beside the checkpoints, and ask it about pictures; raises as `epoch`."""
        from app.finetuning.runner import ModelPayload

        plan = await asyncio.to_thread(self._plan, asked)
        folder = self._folder.fine_tuning_folder(asked.job_id)
        examples = self._located([Example(Path(path), label, key) for path, label, key in asked.examples])
        result = await self._run(ModelPayload(plan, folder, folder / FINE_TUNED_FILE, examples), caller)
        return FineTunedFile(result.file.sha256, result.file.num_bytes, result.probabilities)

    def close(self) -> None:
        """End the threads that prepare pictures, after the engine was closed."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()

    async def _run(self, payload: "EpochPayload | ModelPayload", caller: str) -> Any:
        await asyncio.to_thread(self._start)
        submitted = self._engine.submit(MODEL, payload, priority=Priority.BACKGROUND, cost=payload.cost, caller=caller)
        return await asyncio.wrap_future(submitted)

    def _start(self) -> None:
        import timm  # noqa: F401 - takes seconds, which the device thread must not spend

        from app.finetuning.runner import FineTuneRunner

        with self._lock:
            if self._runner is None:
                runner, device = FineTuneRunner(device=self._device(), decode=self._decode), self._device()
                self._engine.put_model(MODEL, OneThread(runner) if device.type == "cpu" else runner, max_rows=1)
                self._runner = runner

    def _plan(self, asked: FineTuneAsked) -> FineTunePlan:
        """Read a plan; its paths are relative to the data folder, and its weights are those of this node."""
        from app.finetuning.checkpoints import PLAN

        folder = self._folder.fine_tuning_folder(asked.job_id)
        try:
            plan = FineTunePlan.from_bytes((folder / PLAN).read_bytes())
        except FileNotFoundError as error:
            raise DamagedWeights("The plan of the fine-tuning is gone. Submit the job again.") from error
        description = self._backbones.describe(asked.backbone)
        if description.facts.weights_sha256 != plan.weights_sha256:
            raise Conflict(
                f"The backbone {asked.backbone} has other weights than when this job was accepted. Load those, or "
                "submit the job again.",
                code=ErrorCode.BACKBONE_CHANGED,
            )
        return replace(
            plan,
            weights=network_of(description).weights,
            head=None if plan.head is None else folder / plan.head.name,
            train=self._located(plan.train),
            validation=self._located(plan.validation),
        )

    def _located(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        root = self._folder.root
        return tuple(replace(one, path=contained_path(root, str(one.path))) for one in examples)


class OneThread:
    """A runner whose steps run on one thread of torch: on busy cores, two threads wait for each other at every layer.

    The engine's other models, whose last bits depend on the number of threads, get theirs back after each call.
    """

    def __init__(self, runner: Runner) -> None:
        """Limit this runner."""
        self._runner = runner

    def prepare(self, request: EngineRequest) -> None:
        """As the runner's."""
        with one_torch_thread():
            self._runner.prepare(request)

    def step(self, requests: Sequence[EngineRequest]) -> None:
        """As the runner's."""
        with one_torch_thread():
            self._runner.step(requests)

    def is_finished(self, request: EngineRequest) -> bool:
        """As the runner's."""
        return self._runner.is_finished(request)

    def finish(self, request: EngineRequest) -> object:
        """As the runner's."""
        with one_torch_thread():
            return self._runner.finish(request)


def network_of(description: BackboneDescription) -> NetworkFile:
    """Return what a backbone is built from.

    Raises:
        Invalid: `fine_tune_not_supported`.
    """
    if description.network is None:
        detail = "This backbone cannot be fine-tuned: it is not one network of timm or torchvision."
        raise Invalid.field("#/fine_tune", detail, ErrorCode.FINE_TUNE_NOT_SUPPORTED)
    return description.network
