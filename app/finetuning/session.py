"""A fine-tuning in memory: epochs of single steps over a plan's pictures.

Imports no engine and writes no file. One thread uses a `FineTune` (in the API process, the engine's device thread);
pictures are prepared on the threads of a pool.

On one machine with one build of torch and one number of torch's threads, a CPU gives equal bytes for equal plans,
however often the training is interrupted between epochs. A GPU does not: torch does not promise that sums of
convolutions' gradients are taken in one order.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from app.finetuning.network import Classifier, first_head, head_of, load_backbone, num_features_of
from app.finetuning.pictures import BatchLoader, Decode, augmented, dice_of, epoch_order, load_picture
from app.finetuning.plan import FineTunePlan
from app.finetuning.progress import FineTuneEpoch, Progress
from app.finetuning.tensor_files import Tensors, load_tensors
from app.finetuning.trainer import Trainer
from app.modelpacks.preprocessing import Preprocessing


@dataclass(slots=True)
class _Tally:
    """Sums over the pictures of an epoch."""

    loss: float = 0.0
    num_right: int = 0
    num_pictures: int = 0

    def add(self, mean_loss: float, num_right: int, num_pictures: int) -> None:
        self.loss += mean_loss * num_pictures
        self.num_right += num_right
        self.num_pictures += num_pictures

    @property
    def means(self) -> tuple[float, float]:
        return self.loss / self.num_pictures, self.num_right / self.num_pictures


class FineTune:
    """Trains a plan's network: `begin_epoch`, `step` until `is_epoch_done`, `end_epoch`.

    Attributes:
        plan: What is trained.
        trainer: The network and its optimizer.
        progress: The finished epochs.
    """

    def __init__(self, plan: FineTunePlan, *, device: torch.device, decode: Decode, pool: Executor) -> None:
        """Build the network from the plan's files.

        Args:
            plan: What is trained.
            device: Where.
            decode: From the bytes of a picture's file to its pixels (RGB); raises AppError or ValueError.
            pool: Its threads decode and augment.

        Raises:
            BadFineTune: The plan cannot be carried out.
            DamagedWeights: A file of weights cannot be read or does not fit.
        """
        plan.check()
        self.plan = plan
        self.progress = Progress()
        self._preprocessing = Preprocessing.from_config(plan.preprocessing)
        self._transform = self._preprocessing.transform()
        self._decode = decode
        self._pool = pool
        self.trainer = Trainer(
            build_classifier(plan), plan.settings, steps_per_epoch=plan.num_train_steps, device=device
        )
        self._epoch = 0
        self._training: BatchLoader | None = None
        self._validation: BatchLoader | None = None
        self._num_steps_left = 0
        self._tallies = (_Tally(), _Tally())
        self._started_s = 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Start preparing an epoch's pictures.

        Args:
            epoch: Counted from 1; the one after `progress`.
        """
        plan = self.plan
        if epoch != len(self.progress.epochs) + 1:
            raise ValueError("Epochs are trained in order.")
        self._epoch = epoch
        self._num_steps_left = plan.num_steps
        self._tallies = (_Tally(), _Tally())
        self._started_s = time.perf_counter()
        order = epoch_order(len(plan.train), seed=plan.settings.seed, epoch=epoch)
        self._training = BatchLoader(plan.train, order, plan.settings.batch_size, self._training_pixels, self._pool)
        self._validation = None

    @property
    def is_epoch_done(self) -> bool:
        """Whether all steps of the epoch were taken."""
        return self._num_steps_left == 0

    def step(self) -> None:
        """Take one optimizer step; once the training pictures are through, measure one batch of validation pictures.

        Raises:
            UnreadablePicture: A picture of the batch cannot be read.
            FineTuneDiverged: The loss is not finite.
        """
        if self._num_steps_left > self.plan.num_steps - self.plan.num_train_steps:
            self._train()
        else:
            self._validate()
        self._num_steps_left -= 1

    def end_epoch(self) -> FineTuneEpoch:
        """Return the epoch's metrics and add them to `progress`.

        Raises:
            FineTuneDiverged: A weight is not finite, or the loss is far above that of guessing.
        """
        self.trainer.check_finite()
        train, validation = self._tallies
        self.progress.check(train.means[0], len(self.plan.classes))
        metrics = FineTuneEpoch(
            self._epoch,
            *train.means,
            validation_loss=validation.means[0] if validation.num_pictures else None,
            validation_accuracy=validation.means[1] if validation.num_pictures else None,
            lr=self.trainer.lr,
            elapsed_ms=(time.perf_counter() - self._started_s) * 1000,
        )
        self.progress = self.progress.with_epoch(metrics, self.plan.settings)
        return metrics

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return all that a later process needs to continue after this epoch."""
        tensors, numbers = self.trainer.state()
        return tensors, {"trainer": numbers, "progress": self.progress.to_json()}

    def restore(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """Continue from what `state` returned; raises DamagedWeights if that does not fit."""
        self.trainer.restore(tensors, numbers["trainer"])
        self.progress = Progress.from_json(numbers["progress"])

    def _train(self) -> None:
        assert self._training is not None  # noqa: S101 - tells mypy that an epoch has begun
        pixels, labels = next(self._training)
        loss, num_right = self.trainer.train(pixels, labels)
        self._tallies[0].add(loss, num_right, len(labels))
        if self.trainer.num_steps == 1:
            self.progress = replace(self.progress, first_loss=loss)

    def _validate(self) -> None:
        plan = self.plan
        if self._validation is None:
            order = range(len(plan.validation))
            self._validation = BatchLoader(
                plan.validation, order, plan.settings.batch_size, self._validation_pixels, self._pool
            )
        pixels, labels = next(self._validation)
        logits = self.trainer.predict(pixels)
        loss = float(functional.cross_entropy(logits, labels))
        self._tallies[1].add(loss, int((logits.argmax(dim=1) == labels).sum()), len(labels))

    # The threads of the pool.

    def _training_pixels(self, index: int) -> torch.Tensor:
        image, settings = self._load(self.plan.train[index].path), self.plan.settings
        if settings.augment is None:
            return self._transform(image)
        return augmented(image, settings.augment, self._preprocessing, dice_of(settings.seed, self._epoch, index))

    def _validation_pixels(self, index: int) -> torch.Tensor:
        return self._transform(self._load(self.plan.validation[index].path))

    def _load(self, path: Path) -> Image.Image:
        return load_picture(path, self._decode)


def build_classifier(plan: FineTunePlan) -> Classifier:
    """Build a plan's network with its first weights.

    Raises:
        BadFineTune: The backbone cannot be fine-tuned.
        DamagedWeights: A file cannot be read or does not fit.
    """
    backbone = load_backbone(plan.backbone, plan.weights)
    if plan.head is not None:
        return Classifier(backbone, head_of(load_tensors(plan.head), len(plan.classes)))
    num_features = num_features_of(backbone, int(plan.preprocessing["crop"]))
    return Classifier(backbone, first_head(num_features, len(plan.classes), plan.settings.seed))
