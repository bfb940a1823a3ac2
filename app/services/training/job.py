"""The `train` job: computes the features of a dataset's images, fits a head on them and registers the model.

Imports no model, and torch only where the head is fitted (`fitting.py`): the node's engine computes the features. Runs
in the worker process, on the threads of the job; `import_ahead` on a thread of its own.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, TrainEpoch
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.jobs.handler import JobContext
from app.jobs.record import advance, enter, must_stop
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages
from app.services.datasets.payloads import ImagesChunk
from app.services.datasets.rows import find_dataset
from app.services.images.lost_files import MAX_LOST_NAMED, refuse_lost
from app.services.jobs.kinds import TrainKind
from app.services.jobs.wait_policy import store, wait_policy
from app.services.training.dataset_images import count_images, origin, training_columns
from app.services.training.features import FeatureSource
from app.services.training.fine_tuning import FineTuner, fine_tuned_backbone, refit, warnings_about_images
from app.services.training.payloads import (
    FROM_PROMPTS,
    Backbone,
    Examples,
    FeaturesChunk,
    FeaturesChunkResult,
    FeaturesPlan,
    FittedModel,
    TrainSpec,
    refuse_lost_chunks,
)
from app.services.training.zero_shot import TEMPLATE, zero_shot_classes
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

if TYPE_CHECKING:
    from app.schemas.train_reports import AblationRow
    from app.services.training.fitting import FittedHead
    from app.services.training.prompt_fitting import PromptExamples
    from app.training.outcome import HeadEpoch


# Imports torch and everything else that a fit and its evaluation need.
_FITTING = "app.services.training.assessment"


class TrainJob(TrainKind):
    """Handler of `train` jobs."""

    def __init__(
        self, db: Database, folder: DataFolder, features: FeatureCache, node: NodeClient, images: DatasetImages
    ) -> None:
        """Use these services; `images` makes the dataset of a job whose request brought one."""
        self._db = db
        self._folder = folder
        self._source = FeatureSource(FileChecks(folder), features, node)
        self._node = node
        self._images = images
        self._tuner = FineTuner(db, folder, node)

    def run(self, job: JobContext) -> dict[str, Json]:
        """Make the dataset if the request brought one, compute features, fit the head, register the model."""
        spec = TrainSpec.from_json(job.spec)
        if spec.makes_dataset:
            self._enter(job, "images")
            made = self._images.make(job)
            if made.num_missing and not spec.allow_incomplete:
                raise Conflict(
                    f"{made.num_missing} images could not be generated. Retry the job to try them again.",
                    code=ErrorCode.DATASET_INCOMPLETE,
                )
        plan = FeaturesPlan.from_json(job.step("backbone", lambda: self._plan(job, spec).to_json()))
        backbone = plan.backbone
        total: int = job.transaction("count-images", lambda session: count_images(session, job.id, spec, plan))
        items = [chunk.to_json() for chunk in plan.chunks(spec.dataset_id, total)]
        imports = import_ahead()
        refuse_lost_chunks(spec.dataset_id, [FeaturesChunkResult.from_json(result) for result in job.chunks(items)])
        imports.join()
        if spec.fine_tune is None:
            fitted = FittedModel.from_json(job.step("fit", lambda: self._fit(job, spec, backbone).to_json()))
        else:
            fitted = self._fine_tune(job, spec, backbone)
            backbone = fine_tuned_backbone(backbone, job.id, fitted.sha256)
        job.transaction("register", lambda session: self._register(session, job.id, spec, backbone, fitted))
        self._folder.remove_fine_tuning(job.id)
        return {"model_id": job.id}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Make images, or compute features, as the item's `part` says."""
        if item["part"] == "images":
            return self._images.make_chunk(job, ImagesChunk.from_json(item)).to_json()
        return self._features_chunk(job, FeaturesChunk.from_json(item)).to_json()

    def cleanup(self, job: JobContext) -> None:
        """Set aside the unrecorded images of a dataset that this job makes; delete checkpoints of a job that ends."""
        with self._db.snapshot() as session:
            is_ending = must_stop(session.get(Job, job.id))
        if is_ending:  # one that pauses goes on from them
            self._folder.remove_fine_tuning(job.id)
        spec = TrainSpec.from_json(job.spec)
        if spec.makes_dataset:
            self._images.cleanup(spec.dataset_id)

    def _plan(self, job: JobContext, spec: TrainSpec) -> FeaturesPlan:
        """Find the backbone and the images whose features are not cached."""
        backbone = self._backbone(job, spec)
        with self._db.snapshot() as session:
            images = session.execute(training_columns(spec.dataset_id)).all()
        return FeaturesPlan(backbone, self._source.missing(images, backbone))

    def _backbone(self, job: JobContext, spec: TrainSpec) -> Backbone:
        found = Backbone.from_json(self._node.backbone(spec.backbone, keep_waiting=wait_policy(job)).to_json())
        if found.weights_sha256 != spec.backbone_sha256:
            raise Conflict(
                f"The backbone {spec.backbone} has other weights than when this job was accepted. Load those, or "
                "submit the job again.",
                code=ErrorCode.BACKBONE_CHANGED,
            )
        return found

    def _features_chunk(self, job: JobContext, chunk: FeaturesChunk) -> FeaturesChunkResult:
        with self._db.snapshot() as session:
            query = training_columns(chunk.dataset_id).offset(chunk.start).limit(chunk.count)
            images = session.execute(query).all()
        lost = self._source.compute(job, images, chunk.backbone)
        job.transaction("progress", lambda session: advance(session, job.id, len(images)))
        return FeaturesChunkResult(len(lost), lost[:MAX_LOST_NAMED])

    def _fit(self, job: JobContext, spec: TrainSpec, backbone: Backbone) -> FittedModel:
        """Train the head, evaluate it, and write its file."""
        work = self._load(job, spec, backbone)
        fitted, ablation = self._fit_head(job, spec, backbone, work, on_epoch=partial(self._record_epoch, job))
        test, metrics = self._assess(job, spec, work, fitted)
        path = self._folder.model_path(job.id)
        store(job, self._folder, path, fitted.data)
        return FittedModel(
            classes=work.classes,
            path=path,
            sha256=hashlib.sha256(fitted.data).hexdigest(),
            num_bytes=len(fitted.data),
            metrics=metrics,
            dataset=origin(work.dataset, work.images),
            chosen=asdict(fitted.result.chosen),
            test={**test, "ablation": [row.model_dump(mode="json") for row in ablation]},
        )

    def _fine_tune(self, job: JobContext, spec: TrainSpec, backbone: Backbone) -> FittedModel:
        """Train the head, go on from it epoch by epoch, and evaluate the model."""
        start = job.step("fit", lambda: self._begin_fine_tuning(job, spec, backbone))
        epoch, is_over = 1, False
        while not is_over:
            is_over = job.step(f"epoch-{epoch}", partial(self._tuner.epoch, job, spec, epoch))["is_over"]
            epoch += 1
        return FittedModel.from_json(
            job.step("fine-tuned", lambda: self._finish_fine_tuning(job, spec, backbone, start).to_json())
        )

    def _begin_fine_tuning(self, job: JobContext, spec: TrainSpec, backbone: Backbone) -> dict[str, Json]:
        work = self._load(job, spec, backbone)
        # All of them, because the network gets the test images too in the end; cached features hide a lost file.
        refuse_lost(spec.dataset_id, self._source.lost(job, work.images))
        fitted, _ = self._fit_head(job, spec, backbone, work, on_epoch=lambda _: job.check_cancelled())
        probe = self._tuner.begin(job, spec, backbone, fitted, work.examples, work.images, work.classes)
        return {
            "chosen": asdict(fitted.result.chosen),
            "warnings": warnings_about_images(fitted),
            "probe": probe,
        }

    def _finish_fine_tuning(
        self, job: JobContext, spec: TrainSpec, backbone: Backbone, start: dict[str, Json]
    ) -> FittedModel:
        work = self._load(job, spec, backbone)
        file = self._tuner.finish(job, spec, work.images)
        fitted = refit(self._tuner.head(job), file, start, spec, work.examples, len(work.classes))
        test, metrics = self._assess(job, spec, work, fitted)
        return FittedModel(
            classes=work.classes,
            path=self._folder.model_path(job.id),
            sha256=file.sha256,
            num_bytes=file.num_bytes,
            metrics=metrics,
            dataset=origin(work.dataset, work.images),
            chosen=start["chosen"],
            test={**test, "ablation": []},
            probe=start["probe"],
        )

    def _load(self, job: JobContext, spec: TrainSpec, backbone: Backbone) -> "_Work":
        self._enter(job, "training")
        with self._db.snapshot() as session:
            dataset = find_dataset(session, spec.dataset_id)
            images = session.execute(training_columns(dataset.id)).all()
        classes = [entry["name"] for entry in dataset.classes]
        return _Work(dataset, images, classes, self._examples(job, spec, images, backbone))

    def _fit_head(
        self,
        job: JobContext,
        spec: TrainSpec,
        backbone: Backbone,
        work: "_Work",
        *,
        on_epoch: "Callable[[HeadEpoch], None]",
    ) -> "tuple[FittedHead, list[AblationRow]]":
        # These import torch: only where a job trains.
        from app.services.training.fitting import fit_examples
        from app.services.training.prompt_fitting import fit_prompt_examples

        facts: dict[str, Any] = {"classes": work.classes, "backbone_sha256": backbone.weights_sha256}
        facts["on_epoch"] = on_epoch
        if spec.preset == FROM_PROMPTS:
            given = self._prompt_examples(job, work.examples, work.images, backbone, work.classes)
            return fit_prompt_examples(given, spec, **facts)
        return fit_examples(work.examples, spec, check=job.check_cancelled, **facts), []

    def _assess(
        self, job: JobContext, spec: TrainSpec, work: "_Work", fitted: "FittedHead"
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the evaluation of the test split, and the metrics of all splits."""
        from app.services.training.assessment import assess_model

        self._enter(job, "evaluation")
        zero_shot = zero_shot_classes(job, self._node, self._source, work.images, work.classes)
        assessed = assess_model(
            fitted, work.examples, work.images, work.classes, clip_zero_shot=zero_shot, seed=spec.seed
        )
        return assessed.to_json(), assessed.metrics.model_dump(mode="json")

    def _prompt_examples(
        self, job: JobContext, examples: Examples, images: Sequence[Any], backbone: Backbone, classes: Sequence[str]
    ) -> "PromptExamples":
        from app.services.training.prompt_fitting import PromptExamples

        parts = backbone.parts()
        sizes = {part.name: self._source.read(job, images[:1], part).shape[-1] for part in parts}
        texts = self._node.texts(
            [TEMPLATE.format(name) for name in classes], keep_waiting=wait_policy(job), caller=job.caller
        )
        is_real = np.array([image.source == "real" for image in images])
        return PromptExamples(examples, sizes, is_real, texts)

    def _examples(self, job: JobContext, spec: TrainSpec, images: Sequence[Any], backbone: Backbone) -> Examples:
        views = spec.views()
        train = [image for image in images if image.split == "train"]
        features = self._source.read(job, images, backbone)[:, 0]
        more = np.empty((len(train), 0, features.shape[1]), np.float32)
        if len(views) > 1:
            self._source.compute(job, train, backbone, views)  # in parallel, and kept if this step is repeated
            more = self._source.read(job, train, backbone, views[1:])
        return Examples(
            features=features,
            more_views=more,
            labels=np.array([image.class_index for image in images]),
            is_train=np.array([image.split == "train" for image in images]),
            is_test=np.array([image.split == "test" for image in images]),
            ids=[image.sha256 for image in images],
        )

    def _enter(self, job: JobContext, phase: str) -> None:
        job.check_cancelled()
        with self._db.transaction() as session:
            enter(session, job.id, phase)

    def _register(
        self, session: Session, job_id: str, spec: TrainSpec, backbone: Backbone, fitted: FittedModel
    ) -> Json:
        from app.services.training.registration import register_model  # imports what only a finished training needs

        register_model(session, job_id, spec, backbone, fitted)
        return None

    def _record_epoch(self, job: JobContext, metrics: "HeadEpoch") -> None:
        job.check_cancelled()
        with self._db.transaction() as session:
            # A repeated fit gives the same epochs again: the row is replaced, the progress is counted once.
            if session.get(TrainEpoch, (job.id, metrics.epoch)) is None:
                advance(session, job.id, 1)
            session.merge(TrainEpoch(job_id=job.id, **asdict(metrics)))


def import_ahead() -> Thread:
    """Import what a fit needs while the node computes features: torch and scikit-learn take seconds the first time.

    Returns:
        The thread that imports; to be joined before the fit, so that no two threads import the same modules at once.
    """
    thread = Thread(target=import_module, args=(_FITTING,), name="import-ahead", daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True, slots=True)
class _Work:
    """What a head is trained and evaluated on; `images` in the order of the examples."""

    dataset: Dataset
    images: Sequence[Any]
    classes: list[str]
    examples: Examples
