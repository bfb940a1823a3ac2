"""What the settings mean to the parts of an API process, and how its services are put together.

Opens nothing and starts nothing; `main` calls it while the process starts.
"""

from collections.abc import Callable
from functools import partial

from app import __version__
from app.api.deps import Services
from app.config import Settings
from app.db.session import Database
from app.engine.engine import Engine
from app.jobs.queue import JobQueue
from app.modelpacks.devices import resolve_device
from app.services.datasets.exports.service import DatasetExportService
from app.services.datasets.extension import DatasetExtensionService
from app.services.datasets.service import DatasetService
from app.services.datasets.uploads import UploadService
from app.services.evaluation.report.service import TrainReportService
from app.services.evaluation.service import EvaluationService
from app.services.generations.service import GenerationService
from app.services.images.service import ImageService
from app.services.inference.fine_tuning import FineTuning
from app.services.inference.loading import ModelChoice
from app.services.inference.service import Inference
from app.services.inference.status import NodeStatus
from app.services.jobs.events import JobEvents
from app.services.jobs.kinds import JOB_KINDS
from app.services.jobs.service import JobService
from app.services.limits import Limits
from app.services.reports.judgements import ImageJudge
from app.services.reports.service import DatasetReportService
from app.services.scoring import JudgingService
from app.services.thread_pools import Pools
from app.services.training.exports.explanations import Explanations
from app.services.training.exports.service import ModelExportService
from app.services.training.models import ModelService
from app.services.training.service import TrainJobService
from app.storage.exports import ExportFiles
from app.storage.features import FeatureCache
from app.storage.images import DecodeImage, decode_image
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks


def limits_of(settings: Settings) -> Limits:
    """Return the node's bounds as plain values."""
    return Limits(
        prompt_chars=settings.max_prompt_chars,
        num_inference_steps=settings.max_inference_steps,
        num_images_per_prompt=settings.max_images_per_prompt,
        work_pixel_steps=settings.max_work_pixel_steps,
        dataset_images=settings.max_dataset_images,
        upload_bytes=settings.max_upload_bytes,
        upload_pixels=settings.max_upload_pixels,
        queue_size=settings.max_queue_size,
        queued_jobs=settings.max_queued_jobs,
    )


def model_choice(settings: Settings) -> ModelChoice:
    """Return which models the settings ask for."""
    folders = {
        "diffusion": settings.diffusion_dir,
        "clip": settings.clip_dir,
        "classifier": settings.classifier_dir,
        "backbone": settings.backbone_dir,
    }
    return ModelChoice(
        pack=settings.model_pack,
        models_dir=settings.resolved_models_dir,
        overrides={part: folder.resolve() for part, folder in folders.items() if folder is not None},
        device=settings.device,
        dtype=settings.dtype,
        deterministic=settings.deterministic,
        gpu_graphs=settings.gpu_graphs,
        gpu_compile=settings.gpu_compile,
        num_threads=settings.num_threads,
        max_queue_size=settings.max_queue_size,
        backbones_bytes=settings.backbones_mb * 1_000_000,
        trained_dir=settings.data_dir / "models",
    )


def make_fine_tuning(settings: Settings, engine: Engine, folder: DataFolder, inference: Inference) -> FineTuning:
    """Return what fine-tunes for this node's worker; nothing is started before it is asked."""
    limits = limits_of(settings)
    decode = partial(decode_image, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
    return FineTuning(
        engine, inference.backbones, folder, device=lambda: resolve_device(settings.device), decode=decode
    )


def make_services(
    settings: Settings,
    db: Database,
    folder: DataFolder,
    inference: Inference,
    queue: JobQueue,
    pools: Pools,
    decode: DecodeImage,
    has_socket: Callable[[], bool],
) -> Services:
    """Wire every service of an API process; `has_socket` tells whether the node's worker still reaches it."""
    limits = limits_of(settings)
    checks = FileChecks(folder)
    images = ImageService(db, folder, checks)
    models = ModelService(db, folder, checks)
    jobs = JobService(db, queue, folder.reserve)
    dataset_service = DatasetService(db, folder, inference, queue, limits)
    exported = ExportFiles(folder, checks, __version__)
    explanations = Explanations(inference, pools.explanations, settings.backbones_mb * 1_000_000)
    judge = ImageJudge(folder, inference, FeatureCache(folder.features, reserve=folder.reserve), limits, pools)
    return Services(
        pools=pools,
        status=NodeStatus(db, inference, limits, has_socket),
        inference=inference,
        generations=GenerationService(db, folder, inference, queue, limits),
        images=images,
        judging=JudgingService(inference, images, models, limits, explanations, decode=decode),
        datasets=dataset_service,
        extensions=DatasetExtensionService(db, inference, queue, limits),
        uploads=UploadService(db, folder, limits, pools, decode=decode),
        exports=DatasetExportService(db, folder, checks),
        reports=DatasetReportService(db, folder, inference, judge, limits, pools),
        train_jobs=TrainJobService(db, inference, queue, dataset_service, folder),
        models=models,
        model_exports=ModelExportService(models, inference, exported, pools.models),
        evaluations=EvaluationService(db, inference, queue, pools),
        train_reports=TrainReportService(db, checks, limits, pools, decode=decode),
        jobs=jobs,
        events=JobEvents(jobs),
    )


def job_queue(settings: Settings, db: Database, folder: DataFolder) -> JobQueue:
    """Return the queue in which services leave jobs; nothing is connected yet."""
    return JobQueue(
        db,
        settings.resolved_database_url,
        JOB_KINDS,
        max_waiting=settings.max_queued_jobs,
        check_room=folder.reserve.check,
    )
