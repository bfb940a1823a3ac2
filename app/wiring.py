"""What the settings mean to the parts of an API process, and how its services are put together.

Opens nothing and starts nothing; `main` calls it while the process starts.
"""

from collections.abc import Callable
from functools import partial

from app import __version__
from app.access.authenticator import Authenticator
from app.access.caller import AccessPolicy, Shares
from app.access.keys import KeyRows
from app.access.visibility import Visibility
from app.api.deps import Services
from app.config import Settings
from app.db.session import Database
from app.engine.engine import Engine
from app.jobs import durable
from app.jobs.queue import JobQueue
from app.metrics.node import NodeSources
from app.metrics.records import read_ended_jobs, read_jobs
from app.modelpacks.devices import resolve_device
from app.services.datasets.estimates.job_estimator import JobEstimator
from app.services.datasets.exports.service import DatasetExportService
from app.services.datasets.extension import DatasetExtensionService
from app.services.datasets.recipes.shots.loading import ShotLoader
from app.services.datasets.service import DatasetService
from app.services.datasets.uploads import UploadService
from app.services.evaluation.report.service import TrainReportService
from app.services.evaluation.service import EvaluationService
from app.services.generations.service import GenerationService
from app.services.generations.sheets import GenerationSheets
from app.services.images.embedding import EmbeddingService
from app.services.images.reviews import ReviewService
from app.services.images.service import ImageService
from app.services.images.sources import SourceService
from app.services.images.thumbnails import ThumbnailService
from app.services.inference.fine_tuning import FineTuning
from app.services.inference.loading import ModelChoice
from app.services.inference.service import Inference
from app.services.inference.status import NodeStatus, build_facts, engine_state
from app.services.jobs.events import JobEvents
from app.services.jobs.kinds import JOB_KINDS
from app.services.jobs.service import JobService
from app.services.keys import KeyService
from app.services.limits import Limits
from app.services.process.thread_pools import Pools
from app.services.reports.judgements import ImageJudge
from app.services.reports.service import DatasetReportService
from app.services.scoring.nearest import NearestImages
from app.services.scoring.service import JudgingService
from app.services.store.figures import free_bytes, stored_bytes
from app.services.training.exports.explanations import Explanations
from app.services.training.exports.service import ModelExportService
from app.services.training.models import ModelService
from app.services.training.service import TrainJobService
from app.storage.exports import ExportFiles
from app.storage.features import FeatureCache
from app.storage.image_formats import DecodeImage, ReencodeImage, decode_image
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
        loras_dir=settings.loras_dir.resolve() if settings.loras_dir is not None else None,
        loras_bytes=settings.loras_mb * 1_000_000,
        models=settings.named_models,
        models_bytes=settings.models_mb * 1_000_000,
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
    reencode: ReencodeImage,
    has_socket: Callable[[], bool],
) -> Services:
    """Wire every service of an API process; `has_socket` tells whether the node's worker still reaches it."""
    limits = limits_of(settings)
    checks = FileChecks(folder)
    images = ImageService(db, folder, checks)
    sources = SourceService(inference, images, limits, decode=decode)
    models = ModelService(db, folder, checks)
    jobs = JobService(db, queue, folder.reserve)
    estimator = _estimator(settings, inference)
    shots = ShotLoader(db, images, limits, decode=decode)
    dataset_service = DatasetService(db, folder, inference, queue, limits, estimator, shots)
    exported = ExportFiles(folder, checks, __version__)
    explanations = Explanations(inference, pools.explanations, settings.backbones_mb * 1_000_000)
    features = FeatureCache(folder.features, reserve=folder.reserve)
    judge = ImageJudge(folder, inference, features, limits, pools)
    nearest = NearestImages(db, features, pools.explanations)
    return Services(
        pools=pools,
        status=NodeStatus(db, inference, limits, has_socket),
        inference=inference,
        generations=GenerationService(db, folder, inference, queue, limits, sources),
        sheets=GenerationSheets(db, checks),
        images=images,
        sources=sources,
        thumbnails=ThumbnailService(db, folder, checks),
        judging=JudgingService(inference, images, models, limits, explanations, nearest, decode=decode),
        embeddings=EmbeddingService(inference, limits, decode=decode),
        datasets=dataset_service,
        extensions=DatasetExtensionService(db, inference, queue, limits, estimator),
        uploads=UploadService(db, folder, limits, pools, reencode),
        reviews=ReviewService(db),
        exports=DatasetExportService(db, folder, checks),
        reports=DatasetReportService(db, folder, inference, judge, limits, pools),
        train_jobs=TrainJobService(db, inference, queue, dataset_service, folder),
        models=models,
        model_exports=ModelExportService(models, inference, exported, pools.models),
        evaluations=EvaluationService(db, inference, queue, pools),
        train_reports=TrainReportService(db, checks, limits, pools, decode=decode),
        jobs=jobs,
        events=JobEvents(jobs),
        visibility=Visibility(db),
        keys=KeyService(db, access_policy(settings).shares),
    )


def _estimator(settings: Settings, inference: Inference) -> JobEstimator:
    return JobEstimator(
        inference,
        chunk_size=settings.chunk_size,
        chunks_at_once=durable.CHUNKS_AT_ONCE,
        worker_ttl_s=settings.worker_ttl_s,
    )


def metrics_sources(
    settings: Settings, db: Database, folder: DataFolder, engine: Engine, inference: Inference
) -> NodeSources:
    """Return where the metrics of an API process read the state of its node."""
    return NodeSources(
        engine=partial(engine_state, engine, inference),
        jobs=partial(read_jobs, db),
        ended_jobs=partial(read_ended_jobs, db),
        stored_bytes=partial(stored_bytes, db, folder),
        free_bytes=partial(free_bytes, folder),
        reserve_bytes=folder.reserve.num_bytes,
        worker_ttl_s=settings.worker_ttl_s,
        build=partial(build_facts, inference, settings.model_pack),
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


def access_policy(settings: Settings) -> AccessPolicy:
    """Return which requests need an API key, and what a key sees."""
    shares = Shares(
        requests_per_minute=settings.caller_requests_per_minute,
        concurrent_requests=settings.caller_concurrent_requests,
        concurrent_images=settings.caller_concurrent_images,
        pixel_steps_per_day=settings.caller_pixel_steps_per_day,
        stored_mb=settings.caller_stored_mb,
    )
    return AccessPolicy.of(
        settings.host, allows_anonymous=settings.allow_anonymous, reads_own=settings.read_own, shares=shares
    )


def authenticator(settings: Settings, db: Database) -> Authenticator:
    """Return what identifies the callers of an API process; it has read no keys yet."""
    return Authenticator(KeyRows(db), access_policy(settings))
