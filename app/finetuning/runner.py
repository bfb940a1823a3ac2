"""Fine-tuning as a model of the engine: a request is an epoch, and a step of it one optimizer step.

So requests of other models are served between two optimizer steps. The device thread runs it. Nothing is kept between
two requests but the files of `checkpoints.py`: an epoch can run on another node than the one before. Register it with
`max_rows=1`: several fine-tunings take turns, and no step has two of them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.engine.request import EngineRequest, RequestCost
from app.finetuning.checkpoints import (
    ModelFile,
    check_room,
    load_checkpoint,
    load_kept,
    save_checkpoint,
    save_fine_tuned,
)
from app.finetuning.errors import BadFineTune, DamagedWeights, ForeignCheckpoint
from app.finetuning.network import Classifier
from app.finetuning.pictures import BatchLoader, Decode, load_picture
from app.finetuning.plan import Example, FineTunePlan
from app.finetuning.progress import Progress
from app.finetuning.session import FineTune
from app.modelpacks.preprocessing import Preprocessing

# Decoding and augmenting 16 photographs takes two threads about half the time of a step that trains the last block.
LOADER_THREADS = 2


@dataclass(frozen=True, slots=True)
class EpochPayload:
    """One epoch.

    Attributes:
        plan: What is trained.
        folder: Of the checkpoints; of this plan alone.
        epoch: Counted from 1; the epoch before has ended, on any node.
    """

    plan: FineTunePlan
    folder: Path
    epoch: int

    @property
    def cost(self) -> RequestCost:
        """The cost of the engine's request."""
        return RequestCost(steps=self.plan.num_steps)


@dataclass(frozen=True, slots=True)
class EpochResult:
    """An epoch that ended.

    Attributes:
        progress: Its metrics are the last ones.
        is_over: Whether no epoch follows: all are trained, or the validation loss no longer falls.
    """

    progress: Progress
    is_over: bool


@dataclass(frozen=True, slots=True)
class ModelPayload:
    """The finished model: written, and asked about some pictures.

    Attributes:
        target: The model's file.
        examples: Pictures whose probabilities are returned, such as validation and test; may be empty.
    """

    plan: FineTunePlan
    folder: Path
    target: Path
    examples: tuple[Example, ...] = ()

    @property
    def cost(self) -> RequestCost:
        """The cost of the engine's request."""
        return RequestCost(steps=max(1, -(-len(self.examples) // self.plan.settings.batch_size)))


@dataclass(frozen=True, slots=True)
class ModelResult:
    """The model's file, and probabilities (N, K), float32, of the examples in their order."""

    file: ModelFile
    probabilities: np.ndarray


@dataclass(slots=True)
class _Epoch:
    """An epoch at work; with `ended`, one that had ended before, when the process was killed before its answer."""

    payload: EpochPayload
    session: FineTune | None
    ended: Progress | None = None


@dataclass(slots=True)
class _Model:
    """A finished model at work."""

    payload: ModelPayload
    classifier: Classifier
    epoch: int
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    num_steps_left: int
    probabilities: list[np.ndarray]


class FineTuneRunner:
    """Implements `app.engine.runner.Runner` for `EpochPayload` and `ModelPayload`."""

    def __init__(self, *, device: torch.device, decode: Decode, num_threads: int = LOADER_THREADS) -> None:
        """Start the threads that prepare pictures.

        Args:
            device: The engine's.
            decode: From the bytes of a picture's file to its pixels (RGB); raises AppError or ValueError.
            num_threads: >= 1.
        """
        self._device = device
        self._decode = decode
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="fine-tune-pictures")

    def close(self) -> None:
        """End the threads, after the engine was closed."""
        self._pool.shutdown(cancel_futures=True)

    def prepare(self, request: EngineRequest) -> None:
        """Build the network and restore the epoch before.

        Raises:
            BadFineTune: The plan cannot be carried out.
            ForeignCheckpoint: The epoch before has not ended, or the checkpoint is another plan's.
            DamagedWeights: A file is damaged.
            NoRoomForWeights: Before the first epoch: the files will not fit.
        """
        payload = request.payload
        if isinstance(payload, EpochPayload):
            request.state = self._begin_epoch(payload)
        elif isinstance(payload, ModelPayload):
            request.state = self._begin_model(payload)
        else:
            raise TypeError("The fine-tuning takes an epoch or a model.")

    def step(self, requests: Sequence[EngineRequest]) -> None:
        """Take one step of one request.

        Raises:
            UnreadablePicture: A picture cannot be read.
            FineTuneDiverged: The loss is not finite.
            BadFineTune: The step does not fit into the GPU's memory.
        """
        [request] = requests
        try:
            if isinstance(request.state, _Model):
                self._predict(request.state)
            elif request.state.session is not None:
                request.state.session.step()
        except torch.OutOfMemoryError as error:
            raise BadFineTune("A step does not fit into the GPU's memory. Use a smaller batch.") from error

    def is_finished(self, request: EngineRequest) -> bool:
        """Return whether all steps were taken."""
        state = request.state
        if isinstance(state, _Model):
            return state.num_steps_left == 0
        return state.session is None or bool(state.session.is_epoch_done)

    def finish(self, request: EngineRequest) -> EpochResult | ModelResult:
        """Write the epoch's checkpoint, or the model.

        Raises:
            FineTuneDiverged: The epoch's loss is far above that of guessing; no checkpoint is written.
            StorageFull: A file does not fit; the epoch before is still there.
        """
        state = request.state
        if isinstance(state, _Model):
            return self._finish_model(state)
        payload, progress = state.payload, state.ended
        if state.session is not None:
            state.session.end_epoch()
            save_checkpoint(payload.folder, state.session)
            progress = state.session.progress
        return EpochResult(progress, progress.is_over(payload.plan.settings))

    def _begin_epoch(self, payload: EpochPayload) -> _Epoch:
        plan, epoch = payload.plan, payload.epoch
        checkpoint = None
        try:
            checkpoint = load_checkpoint(payload.folder, plan)
        except (DamagedWeights, ForeignCheckpoint):
            if epoch > 1:
                raise
        num_ended = len(checkpoint.progress.epochs) if checkpoint else 0
        if checkpoint is not None and num_ended >= epoch:
            return _Epoch(payload, None, checkpoint.progress.up_to(epoch, plan.settings))
        if num_ended != epoch - 1:
            raise ForeignCheckpoint("The checkpoint of the epoch before is missing. Submit the job again.")
        session = FineTune(plan, device=self._device, decode=self._decode, pool=self._pool)
        if checkpoint is None:
            check_room(payload.folder, plan)
        else:
            session.restore(checkpoint.tensors, checkpoint.numbers)
        session.begin_epoch(epoch)
        return _Epoch(payload, session)

    def _begin_model(self, payload: ModelPayload) -> _Model:
        classifier, epoch = load_kept(payload.folder, payload.plan)
        transform = Preprocessing.from_config(payload.plan.preprocessing).transform()
        examples = payload.examples

        def pixels(index: int) -> torch.Tensor:
            return transform(load_picture(examples[index].path, self._decode))

        size = payload.plan.settings.batch_size
        batches = BatchLoader(examples, range(len(examples)), size, pixels, self._pool)
        return _Model(payload, classifier.to(self._device), epoch, batches, payload.cost.steps, [])

    @torch.inference_mode()
    def _predict(self, state: _Model) -> None:
        batch = next(state.batches, None)
        if batch is not None:
            logits = state.classifier(batch[0].to(self._device))
            state.probabilities.append(logits.float().softmax(dim=1).cpu().numpy())
        state.num_steps_left -= 1

    def _finish_model(self, state: _Model) -> ModelResult:
        payload = state.payload
        file = save_fine_tuned(payload.target, state.classifier, payload.plan, state.epoch)
        empty = np.zeros((0, len(payload.plan.classes)), np.float32)
        return ModelResult(file, np.concatenate([empty, *state.probabilities]))
