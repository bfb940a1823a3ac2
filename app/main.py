"""The API process: builds, wires and closes everything in the lifespan of its two applications.

The public application listens on the network; the internal one, for this node's worker, on a Unix socket.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from app import __version__
from app.api import (
    dataset_exports,
    dataset_reports,
    datasets,
    generate,
    generations,
    jobs,
    judging,
    openapi,
    problems,
    service,
    submissions,
    train_jobs,
    uploads,
)
from app.api.deps import Services
from app.api.edge import Edge
from app.api.internal import create_internal_app
from app.config import Settings
from app.db.session import Database
from app.engine.engine import Engine
from app.jobs.queue import JobQueue
from app.services import leftovers
from app.services.dataset_export import DatasetExportService
from app.services.dataset_extension import DatasetExtensionService
from app.services.dataset_report import DatasetReportService
from app.services.datasets import DatasetService
from app.services.generation import GenerationService
from app.services.image_judgements import ImageJudge
from app.services.images import ImageService
from app.services.inference import Inference
from app.services.job_events import JobEvents
from app.services.job_kinds import JOB_KINDS
from app.services.jobs import JobService
from app.services.judging import JudgingService
from app.services.limits import Limits
from app.services.model_loading import ModelChoice, start_inference
from app.services.models import ModelService
from app.services.node_engine import NodeEngine
from app.services.node_status import NodeStatus
from app.services.train_jobs import TrainJobService
from app.services.uploads import UploadService
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.reserve import reserve_of

log = logging.getLogger("foxhound")

StartModels = Callable[[ModelChoice], tuple[Engine, Inference]]

ROUTERS = (
    generate,
    generations,
    judging,
    datasets,
    uploads,
    dataset_exports,
    dataset_reports,
    train_jobs,
    jobs,
    service,
)


def create_app(settings: Settings, *, start_models: StartModels = start_inference) -> FastAPI:
    """Return the public application; nothing is opened before its lifespan begins.

    Args:
        settings: Everything that can be chosen.
        start_models: Brings up the engine and its models.
    """
    app = FastAPI(
        title="Foxhound",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        max_body_size=settings.max_body_bytes,
    )
    app.state.settings = settings
    app.state.start_models = start_models
    problems.install(app)
    submissions.install(app)
    openapi.install(app)
    for module in ROUTERS:
        app.include_router(module.router)
    service.install_docs(app)
    return app


def with_edge(app: FastAPI) -> ASGIApp:
    """Return what the server serves: the application behind its outermost layer."""
    settings: Settings = app.state.settings
    return Edge(app, body_timeout_s=settings.body_timeout_s)


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
    )


def make_services(
    settings: Settings, db: Database, folder: DataFolder, inference: Inference, queue: JobQueue
) -> Services:
    """Wire every service of an API process."""
    limits = limits_of(settings)
    images = ImageService(db, folder)
    models = ModelService(db, folder)
    jobs = JobService(db, queue, folder.reserve)
    dataset_service = DatasetService(db, folder, inference, queue, limits)
    judge = ImageJudge(folder, inference, FeatureCache(folder.features, reserve=folder.reserve), limits)
    return Services(
        status=NodeStatus(db, inference, limits),
        inference=inference,
        generations=GenerationService(db, folder, inference, queue, limits),
        images=images,
        judging=JudgingService(inference, images, models, limits),
        datasets=dataset_service,
        extensions=DatasetExtensionService(db, inference, queue, limits),
        uploads=UploadService(db, folder, limits),
        exports=DatasetExportService(db, folder),
        reports=DatasetReportService(db, folder, inference, judge, limits),
        train_jobs=TrainJobService(db, inference, queue, dataset_service, folder.reserve),
        models=models,
        jobs=jobs,
        events=JobEvents(jobs),
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    url = settings.resolved_database_url
    db = Database(url)
    folder = DataFolder(settings.data_dir, reserve_of(settings.data_dir, url, settings.reserve_mb))
    await asyncio.to_thread(_put_right, db, folder)
    queue = JobQueue(db, url, JOB_KINDS, max_waiting=settings.max_queued_jobs, check_room=folder.reserve.check)
    engine, inference = app.state.start_models(model_choice(settings))
    app.state.services = make_services(settings, db, folder, inference, queue)
    internal = create_internal_app(NodeEngine(inference, limits_of(settings)))
    try:
        async with _listening(internal, settings.engine_socket):
            try:
                yield
            finally:
                # While the socket still answers: the worker is told 503, and gives its work back.
                await asyncio.to_thread(engine.close)
                await asyncio.to_thread(inference.close)
    finally:
        queue.close()
        db.close()


def _put_right(db: Database, folder: DataFolder) -> None:
    """Let files and records agree again, before anybody asks for them; a node that cannot do it serves all the same."""
    try:
        leftovers.sweep(db, folder)
    except Exception:
        log.exception("What processes that died have left could not be put right; the next start does it.")


@contextlib.asynccontextmanager
async def _listening(internal: FastAPI, path: Path) -> AsyncIterator[None]:
    """Serve the internal application on the node's socket, which only this user may open."""
    with _bound(path) as sock:
        server = _InnerServer(uvicorn.Config(internal, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.ensure_future(server.serve(sockets=[sock]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


@contextlib.contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        previous = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(previous)
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)


class Server(uvicorn.Server):
    """Serves the public application; ends its event streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        """Wire the server; `app` is what `create_app` gave."""
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let every stream end, then wait as uvicorn does."""
        services: Services | None = getattr(self._app.state, "services", None)
        if services is not None:
            services.events.close()
        await super().shutdown(sockets)


class _InnerServer(uvicorn.Server):
    """A server beside the process's main one, which alone handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the main server."""
        yield
