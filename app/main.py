"""The API process: builds, wires and closes everything in the lifespan of its two applications.

The public application listens on the network; the internal one, for this node's worker, on a Unix socket.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from starlette.types import ASGIApp

from app import __version__
from app.api import openapi, problems, submissions
from app.api.deps import Services
from app.api.internal import create_internal_app
from app.api.json_bodies import SMALL_BODY
from app.api.middleware import BodyLimits, Edge
from app.api.routes import (
    dataset_images,
    datasets,
    exports,
    generate,
    generations,
    jobs,
    reports,
    scoring,
    service,
    train_jobs,
)
from app.api.serving.connections import ConnectionLimits
from app.api.serving.draining import Draining
from app.api.serving.server import InnerServer, ServerConfig
from app.config import Settings
from app.db.session import Database
from app.engine.engine import Engine
from app.jobs.queue import JobQueue
from app.node.socket import EngineSocket
from app.services.datasets.export import DatasetExportService
from app.services.datasets.extension import DatasetExtensionService
from app.services.datasets.repair import DatasetRepairService
from app.services.datasets.service import DatasetService
from app.services.datasets.uploads import UploadService
from app.services.generations.service import GenerationService
from app.services.images.service import ImageService
from app.services.inference.loading import ModelChoice, start_inference
from app.services.inference.remote import NodeEngine
from app.services.inference.service import Inference
from app.services.inference.status import NodeStatus
from app.services.jobs.events import JobEvents
from app.services.jobs.kinds import JOB_KINDS
from app.services.jobs.service import JobService
from app.services.limits import Limits
from app.services.reports.judgements import ImageJudge
from app.services.reports.service import DatasetReportService
from app.services.scoring import JudgingService
from app.services.store import recovery
from app.services.store.identity import assign_store_id
from app.services.thread_pools import Pools, open_pools
from app.services.training.models import ModelService
from app.services.training.service import TrainJobService
from app.storage.features import FeatureCache
from app.storage.images import DecodeImage, decode_image
from app.storage.layout import DataFolder
from app.storage.reserve import reserve_of
from app.storage.soundness import FileChecks

log = logging.getLogger("foxhound")

_LOOK_AT_SOCKET_S = 2.0

StartModels = Callable[[ModelChoice], tuple[Engine, Inference]]

_NUM_SHORT_CALLS = 32

ROUTERS = (
    generate,
    generations,
    scoring,
    datasets,
    dataset_images,
    exports,
    reports,
    train_jobs,
    jobs,
    service,
)


def create_app(
    settings: Settings, *, start_models: StartModels = start_inference, decode: DecodeImage = decode_image
) -> FastAPI:
    """Return the public application; nothing is opened before its lifespan begins.

    Args:
        settings: Everything that can be chosen.
        start_models: Brings up the engine and its models.
        decode: Reads untrusted image files.
    """
    app = FastAPI(
        title="Foxhound",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        max_body_size=min(SMALL_BODY, settings.max_body_bytes),
    )
    app.state.settings = settings
    app.state.start_models = start_models
    app.state.draining = Draining()
    app.state.decode = decode
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
    return Edge(app, body=_body_limits(settings), draining=app.state.draining)


def server_config(app: FastAPI, *, served: ASGIApp | None = None, parser: str = "auto") -> ServerConfig:
    """Return how the public application is served.

    Args:
        app: What `create_app` gave.
        served: What the server calls; default: the application behind its edge.
        parser: The HTTP parser, see `connection_class`.
    """
    settings: Settings = app.state.settings
    return ServerConfig(
        served or with_edge(app),
        limits=ConnectionLimits(
            connections=settings.max_connections,
            per_address=settings.max_connections_per_address,
            head_timeout_s=settings.head_timeout_s,
            read_timeout_s=settings.body_timeout_s,
        ),
        parser=parser,
        delay_s=settings.shutdown_delay_s,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )


def _body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(silence_s=settings.body_timeout_s, min_rate=settings.min_upload_rate)


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
    judge = ImageJudge(folder, inference, FeatureCache(folder.features, reserve=folder.reserve), limits, pools)
    return Services(
        pools=pools,
        status=NodeStatus(db, inference, limits, has_socket),
        inference=inference,
        generations=GenerationService(db, folder, inference, queue, limits),
        images=images,
        judging=JudgingService(inference, images, models, limits, decode=decode),
        datasets=dataset_service,
        extensions=DatasetExtensionService(db, inference, queue, limits),
        repairs=DatasetRepairService(db, inference, queue),
        uploads=UploadService(db, folder, limits, pools, decode=decode),
        exports=DatasetExportService(db, folder, checks),
        reports=DatasetReportService(db, folder, inference, judge, limits, pools),
        train_jobs=TrainJobService(db, inference, queue, dataset_service, folder.reserve),
        models=models,
        jobs=jobs,
        events=JobEvents(jobs),
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    # For `asyncio.to_thread`: what takes long has a pool of its own, but a call may wait for the database's lock, and
    # Python's default is six threads on two cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_NUM_SHORT_CALLS, "short"))
    url = settings.resolved_database_url
    engine_socket = EngineSocket(settings.engine_socket)
    with engine_socket.locked(), contextlib.closing(Database(url)) as db:
        folder = DataFolder(settings.data_dir, reserve_of(settings.data_dir, url, settings.reserve_mb))
        await asyncio.to_thread(_put_right, db, folder)
        with contextlib.closing(_job_queue(settings, db, folder)) as queue:
            engine, inference = app.state.start_models(model_choice(settings))
            pools = open_pools()
            app.state.services = make_services(
                settings, db, folder, inference, queue, pools, app.state.decode, engine_socket.is_own
            )
            internal = Edge(
                create_internal_app(NodeEngine(inference, limits_of(settings))),
                body=_body_limits(settings),
                draining=app.state.draining,
                access_level=logging.DEBUG,
            )
            async with _listening(internal, engine_socket):
                try:
                    yield
                finally:
                    # While the socket still answers: the worker is told 503, and gives its work back.
                    app.state.draining.refuse()
                    for close in (engine.close, inference.close, pools.close):
                        await _in_a_thread_of_its_own(close)


def _job_queue(settings: Settings, db: Database, folder: DataFolder) -> JobQueue:
    return JobQueue(
        db,
        settings.resolved_database_url,
        JOB_KINDS,
        max_waiting=settings.max_queued_jobs,
        check_room=folder.reserve.check,
    )


async def _in_a_thread_of_its_own(call: Callable[[], object]) -> None:
    """Run a call that must not wait for a thread of the shared pool, which requests cut short may still hold."""
    with ThreadPoolExecutor(1, thread_name_prefix="closing") as threads:
        await asyncio.get_running_loop().run_in_executor(threads, call)


def _put_right(db: Database, folder: DataFolder) -> None:
    """Let files and records agree again, before anybody asks for them; a node that cannot do it serves all the same.

    Raises:
        StoreMismatch: The database and the folder do not belong together: nothing may be served.
    """
    assign_store_id(db, folder)
    try:
        recovery.sweep(db, folder)
    except Exception:
        log.exception("What processes that died have left could not be put right; the next start does it.")


@contextlib.asynccontextmanager
async def _listening(internal: ASGIApp, engine_socket: EngineSocket) -> AsyncIterator[None]:
    """Serve the internal application on the node's socket."""
    with engine_socket.bound() as sock:
        config = ServerConfig(internal, limits=ConnectionLimits(), lifespan="off", timeout_graceful_shutdown=1)
        server = InnerServer(config)
        serving = asyncio.ensure_future(server.serve(sockets=[sock]))
        watching = asyncio.ensure_future(_tell_when_lost(engine_socket))
        try:
            yield
        finally:
            watching.cancel()
            server.should_exit = True
            await serving


async def _tell_when_lost(engine_socket: EngineSocket) -> None:
    while engine_socket.is_own():
        await asyncio.sleep(_LOOK_AT_SOCKET_S)
    log.error(
        "The node's socket %s was removed, or another process has taken its place: the worker cannot reach the engine. "
        "Restart this node, and give each node its own FOXHOUND_RUN_DIR.",
        engine_socket.path,
    )
