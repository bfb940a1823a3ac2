"""The fine-tuning of a train job: the plan and the first head are written here, and the node's engine trains.

Imports no model, and torch only where a head is read. Runs in the worker process, on the thread of the job. Paths in a
plan are relative to the data folder, because another node may have mounted it elsewhere.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.db.models import TrainEpoch
from app.db.session import Database
from app.finetuning.plan import BackboneSpec, Example, FineTunePlan
from app.finetuning.settings import FineTuneSettings
from app.jobs.handler import JobContext
from app.jobs.record import advance
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.node.protocol import FINE_TUNED, FINE_TUNED_FILE, FineTuneAsked, FineTunedFile
from app.services.jobs.wait_policy import load, store, wait_policy
from app.services.training.payloads import Backbone, Examples, TrainSpec
from app.storage.layout import FINE_TUNING, DataFolder

if TYPE_CHECKING:
    from app.services.training.fitting import FittedHead

_PLAN, _HEAD = "plan.json", "head.safetensors"
# Warnings about the images; the others are about the head that the fine-tuning starts from.
_OF_IMAGES = ("few_validation_images", "few_training_images", "imbalanced")


class FineTuner:
    """Asks the node for the steps of a job's fine-tuning."""

    def __init__(self, db: Database, folder: DataFolder, node: NodeClient) -> None:
        """Use these services."""
        self._db = db
        self._folder = folder
        self._node = node

    def begin(
        self,
        job: JobContext,
        spec: TrainSpec,
        backbone: Backbone,
        fitted: "FittedHead",
        examples: Examples,
        images: Sequence[Any],
        classes: Sequence[str],
    ) -> dict[str, Json]:
        """Write the first head and the plan; return what the head is worth, for the model's lineage."""
        network = self._node.fine_tune_network(spec.backbone, keep_waiting=wait_policy(job))
        head = _first_head(fitted, examples, classes, backbone)
        rows = {"train": examples.is_train & ~fitted.is_validation, "validation": fitted.is_validation}
        pictures = {
            part: tuple(
                Example(Path(images[row].path), images[row].class_index, images[row].sha256)
                for row in np.flatnonzero(chosen).tolist()
            )
            for part, chosen in rows.items()
        }
        assert spec.fine_tuning is not None  # noqa: S101 - the caller has asked
        plan = FineTunePlan(
            backbone=BackboneSpec(**network),
            weights=Path(spec.backbone),  # each node puts its own file here
            weights_sha256=backbone.weights_sha256,
            preprocessing=backbone.facts["preprocessing"],
            classes=tuple(classes),
            settings=FineTuneSettings.from_json(spec.fine_tuning),
            head=Path(_HEAD),
            head_sha256=hashlib.sha256(head).hexdigest(),
            **pictures,
        )
        plan.check()
        store(job, self._folder, f"{FINE_TUNING}/{job.id}/{_HEAD}", head)
        store(job, self._folder, f"{FINE_TUNING}/{job.id}/{_PLAN}", plan.to_bytes())
        return _worth(fitted, examples)

    def epoch(self, job: JobContext, spec: TrainSpec, epoch: int) -> dict[str, Json]:
        """Train an epoch and record its metrics; return whether it was the last one."""
        asked = FineTuneAsked(job.id, spec.backbone, epoch)
        wait = wait_policy(job)
        found = load(
            job,
            lambda: self._node.fine_tune_epoch(asked, keep_waiting=wait, check=job.check_cancelled, caller=job.caller),
        )
        metrics = found["epochs"][epoch - 1]
        job.check_cancelled()
        with self._db.transaction() as session:
            if session.get(TrainEpoch, (job.id, epoch)) is None:  # a repeated epoch is counted once
                advance(session, job.id, 1)
            session.merge(TrainEpoch(job_id=job.id, test_loss=None, test_accuracy=None, **metrics))
        return {"is_over": found["is_over"]}

    def finish(self, job: JobContext, spec: TrainSpec, images: Sequence[Any]) -> FineTunedFile:
        """Put the model in its place, and return what it says about all images."""
        examples = [(image.path, image.class_index, image.sha256) for image in images]
        asked = FineTuneAsked(job.id, spec.backbone, examples=examples)
        finished = load(
            job,
            lambda: self._node.fine_tune_model(
                asked, keep_waiting=wait_policy(job), check=job.check_cancelled, caller=job.caller
            ),
        )
        job.check_cancelled()
        self._folder.place_model(self._folder.fine_tuning_folder(job.id) / FINE_TUNED_FILE, job.id)
        return finished

    def head(self, job: JobContext) -> bytes:
        """Return the file of the head that the fine-tuning started from."""
        return load(job, lambda: self._folder.read(f"{FINE_TUNING}/{job.id}/{_HEAD}"))


def fine_tuned_backbone(backbone: Backbone, model_id: str, sha256: str) -> Backbone:
    """Return a fine-tuned model's own backbone, whose file is the model's; it says what it was made from."""
    origin = {"name": backbone.name, "weights_sha256": backbone.weights_sha256}
    own = {"name": f"{FINE_TUNED}{model_id}", "weights_sha256": sha256, "fine_tuned_from": origin}
    return Backbone({**backbone.facts, **own})


def refit(
    head: bytes, file: FineTunedFile, start: dict[str, Json], spec: TrainSpec, examples: Examples, num_classes: int
) -> "FittedHead":
    """Return a fine-tuned model in the form in which a head is assessed."""
    from app.services.training.fitting import FittedHead, held_out, out_of_sample
    from app.training.heads import HeadResult
    from app.training.outcome import HeadWarning
    from app.training.probe import load_probe
    from app.training.settings import HeadSettings

    warnings = tuple(HeadWarning(**one) for one in start["warnings"])
    chosen = HeadSettings(**start["chosen"])
    return FittedHead(
        data=b"",
        result=HeadResult(load_probe(head), (), chosen, warnings=warnings),
        probabilities=file.probabilities,
        is_validation=held_out(examples, spec),
        out_of_sample=out_of_sample(examples, num_classes, spec.seed),
    )


def warnings_about_images(fitted: "FittedHead") -> list[dict[str, str]]:
    """Return a head's warnings that hold for any model of the same images."""
    return [{"code": one.code, "detail": one.detail} for one in fitted.result.warnings if one.code in _OF_IMAGES]


def _first_head(fitted: "FittedHead", examples: Examples, classes: Sequence[str], backbone: Backbone) -> bytes:
    """Return the file of the first head: the probe; one on features of norm 1 is divided by the mean norm."""
    from app.training.probe import LinearProbe, save_probe

    probe = fitted.result.probe
    if probe.normalise:
        norm = float(np.linalg.norm(examples.features[examples.is_train], axis=1).mean())
        probe = LinearProbe((probe.weight / max(norm, 1e-12)).astype(np.float32), probe.bias)
    return save_probe(probe, classes=classes, backbone=backbone.weights_sha256)


def _worth(fitted: "FittedHead", examples: Examples) -> dict[str, Json]:
    """Return the accuracies of the first head; None where a split has no images."""
    is_right = fitted.probabilities.argmax(axis=1) == examples.labels
    rows = {"validation": fitted.is_validation, "test": examples.is_test}
    return {
        "solver": fitted.result.chosen.solver,
        **{
            f"{split}_accuracy": float(is_right[chosen].mean()) if chosen.any() else None
            for split, chosen in rows.items()
        },
        "num_test": int(rows["test"].sum()),
    }
