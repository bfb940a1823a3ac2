"""The API process: builds, wires and closes everything in the lifespan of its two applications.

The public application listens on the network; the internal one, for this node's worker, on a Unix socket.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from app import __version__
from app.api import openapi, problems, submissions
from app.api.access.layer import AccessLayer, ShareLayer
from app.api.access.scopes import require_listed
from app.api.compat import surfaces
from app.api.compat.errors import ErrorForms
from app.api.deps import BOUNDED_TAGS
from app.api.middleware import BodyLimits, HttpMiddleware
from app.api.parsing.json_bodies import SMALL_BODY
from app.api.parsing.query_names import refuse_unknown_query
from app.api.routes import (
    dataset_images,
    datasets,
    exports,
    generate,
    generations,
    jobs,
    keys,
    pages,
    reports,
    scoring,
    service,
)
from app.api.routes.training import backbones, models, train_jobs, train_reports
from app.api.serving.accepted_work import AcceptedWorkBook
from app.api.serving.browsers import BrowserGuard, BrowserHeaders
from app.api.serving.connection_book import ConnectionLimits
from app.api.serving.draining import Draining
from app.api.serving.internal import create_internal_app
from app.api.serving.refusals import RefusalBook
from app.api.serving.representations import with_representations
from app.api.serving.server import InnerServer, ServerConfig
from app.config import Settings
from app.db.session import Database
from app.engine.engine import Engine
from app.metrics.node import NodeMetrics
from app.node.socket import EngineSocket
from app.origins import allowed_hosts, read_origins
from app.services.inference.loading import ModelChoice, start_inference
from app.services.inference.remote import NodeEngine
from app.services.inference.service import Inference
from app.services.process.thread_pools import NUM_LARGE_PICTURES, open_pools
from app.services.store import recovery, removal
from app.services.store.identity import assign_store_id
from app.storage.image_formats import DecodeImage, ReencodeImage, decode_image
from app.storage.layout import DataFolder
from app.storage.reserve import reserve_of
from app.storage.upload_process import UploadProcesses
from app.tracing.spans import NO_TRACING, Tracing
from app.ui.routes import router as console
from app.wiring import (
    authenticator,
    job_queue,
    limits_of,
    make_fine_tuning,
    make_services,
    metrics_sources,
    model_choice,
)

log = logging.getLogger("foxhound")

_LOOK_AT_SOCKET_S = 2.0

StartModels = Callable[[ModelChoice], tuple[Engine, Inference]]

_NUM_SHORT_CALLS = 32

# The framework's own spans, metrics and logs record paths and the texts of exceptions.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

ROUTERS = (
    generate,
    generations,
    scoring,
    datasets,
    dataset_images,
    exports,
    reports,
    train_jobs,
    train_reports,
    models,
    backbones,
    jobs,
    keys,
    service,
    pages,
)


def create_app(
    settings: Settings,
    *,
    start_models: StartModels = start_inference,
    decode: DecodeImage = decode_image,
    reencode: ReencodeImage | None = None,
    tracing: Tracing = NO_TRACING,
) -> FastAPI:
    """Return the public application; nothing is opened before its lifespan begins.

    Args:
        settings: Everything that can be chosen.
        start_models: Brings up the engine and its models.
        decode: Reads untrusted image files.
        reencode: Reads uploads; None: large ones in processes of their own.
        tracing: Makes spans; closed with the application.
    """
    app = FastAPI(
        title="Foxhound",
        version=__version__,
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        max_body_size=min(SMALL_BODY, settings.max_body_bytes),
        telemetry=NO_TELEMETRY,
    )
    app.state.settings = settings
    app.state.start_models = start_models
    app.state.draining = Draining()
    app.state.decode = decode
    app.state.reencode = reencode
    app.state.metrics = NodeMetrics()
    app.state.tracing = tracing
    problems.install(app)
    submissions.install(app)
    openapi.install(app)
    for module in ROUTERS:
        require_listed(module.router.routes)
        app.include_router(module.router, dependencies=[Depends(refuse_unknown_query), BOUNDED_TAGS])
    surfaces.install(app, settings.compat_surfaces)
    if settings.ui:
        app.include_router(console)
    service.install_docs(app)
    return app


def with_middleware(app: FastAPI) -> ASGIApp:
    """Return what the server serves: the application behind its layers.

    A request passes `BrowserHeaders`, which only adds headers to the answers of all others, `ErrorForms`, which writes
    errors as the clients of other services read them, `HttpMiddleware` (request id, body rate, shutdown, one form of
    errors), `BrowserGuard`, which refuses what other sites must not send, `AccessLayer`, which checks the API key,
    `ShareLayer`, which holds its caller to its share, and the layers of `representations`: `HEAD`, gzip, and entity
    tags of JSON.
    """
    settings: Settings = app.state.settings
    origins = read_origins(settings.cors_origins or "")
    hosts = allowed_hosts(settings.host, settings.allowed_hosts or "", socket.gethostname())
    with_keys = AccessLayer(ShareLayer(with_representations(app)), lambda: app.state.authenticator)
    http = HttpMiddleware(
        BrowserGuard(with_keys, hosts=hosts, origins=origins),
        body=_body_limits(settings),
        draining=app.state.draining,
        refusals=RefusalBook(settings.refused_share),
        accepted=AcceptedWorkBook(settings.refused_share),
        metrics=app.state.metrics.http,
        tracing=app.state.tracing,
    )
    return BrowserHeaders(ErrorForms(http, surfaces.prefixes_of(settings.compat_surfaces)), origins)


def server_config(app: FastAPI, *, served: ASGIApp | None = None, parser: str = "auto") -> ServerConfig:
    """Return how the public application is served.

    Args:
        app: What `create_app` gave.
        served: What the server calls; default: the application behind its middleware.
        parser: The HTTP parser, see `connection_class`.
    """
    settings: Settings = app.state.settings
    return ServerConfig(
        served or with_middleware(app),
        limits=ConnectionLimits(
            connections=settings.max_connections,
            per_address=settings.max_connections_per_address,
            refused_share=settings.refused_share,
            head_timeout_s=settings.head_timeout_s,
            read_timeout_s=settings.body_timeout_s,
        ),
        parser=parser,
        delay_s=settings.shutdown_delay_s,
        metrics=app.state.metrics.http,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )


def _body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(silence_s=settings.body_timeout_s, min_rate=settings.min_upload_rate)


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
        with (
            contextlib.closing(job_queue(settings, db, folder)) as queue,
            contextlib.closing(UploadProcesses(NUM_LARGE_PICTURES)) as upload_processes,
        ):
            engine, inference = _start_models(app, settings, db, folder)
            pools = open_pools()
            fine_tuning = make_fine_tuning(settings, engine, folder, inference)
            services = app.state.services = make_services(
                settings,
                db,
                folder,
                inference,
                queue,
                pools,
                app.state.decode,
                app.state.reencode or upload_processes.reencode,
                engine_socket.is_own,
            )
            node_engine = NodeEngine(inference, limits_of(settings), fine_tuning, services.events.show)
            access = app.state.authenticator = authenticator(settings, db)
            await access.start()
            async with _listening(_internal(app, node_engine), engine_socket):
                try:
                    yield
                finally:
                    # While the socket still answers: the worker is told 503, and gives its work back.
                    app.state.draining.refuse()
                    services.model_exports.close()
                    await access.close()
                    for part in (engine, fine_tuning, inference, pools, app.state.metrics, app.state.tracing):
                        await _in_a_thread_of_its_own(part.close)


def _start_models(app: FastAPI, settings: Settings, db: Database, folder: DataFolder) -> tuple[Engine, Inference]:
    """Bring up the engine and its models, observed by the metrics and, if it is on, by the tracing."""
    engine, inference = app.state.start_models(model_choice(settings))
    metrics: NodeMetrics = app.state.metrics
    engine.observe(metrics.engine)
    if app.state.tracing is not NO_TRACING:
        engine.observe(app.state.tracing)
    metrics.watch(metrics_sources(settings, db, folder, engine, inference))
    return engine, inference


def _internal(app: FastAPI, node_engine: NodeEngine) -> ASGIApp:
    """Return the application for this node's worker, behind its middleware."""
    return HttpMiddleware(
        create_internal_app(node_engine),
        body=_body_limits(app.state.settings),
        draining=app.state.draining,
        access_level=logging.DEBUG,
        is_internal=True,
        tracing=app.state.tracing,
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
        removal.finish_removals(db, folder)
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
    """Log once that the socket is no longer this process's; `/readyz` reports it too, but nothing may request that."""
    while engine_socket.is_own():  # noqa: ASYNC110 - another process changes the file
        await asyncio.sleep(_LOOK_AT_SOCKET_S)
    log.error(
        "The node's socket %s was removed, or another process has taken its place: the worker cannot reach the engine. "
        "Restart this node, and give each node its own FOXHOUND_RUN_DIR.",
        engine_socket.path,
    )
