"""The `foxhound` command: processes of a node, its database and files, and what a running service does.

Reads the settings, starts processes and turns failures into exit statuses; every decision is made elsewhere.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.cli.connection import file_error
from app.cli.console import err, out, print_note
from app.cli.dataset import dataset_app
from app.cli.files import check_folder
from app.cli.jobs import jobs_app
from app.cli.keys import keys_app, refuse_open_node
from app.cli.migrate import migrate
from app.cli.packs import add_packs
from app.cli.settings import SETTINGS_HINT, read_settings, refuse, settings
from app.cli.spinning import bound_spinning
from app.cli.storage import storage_app
from app.cli.trained import models_app
from app.cli.work import classify, generate, score, train
from app.config import Settings
from app.logs.setup import configure_logging
from app.node.supervisor import run_supervised, watch_supervisor
from app.tracing.spans import NO_TRACING, Tracing

app = typer.Typer(
    name="foxhound",
    help="From a prompt to a trained image classifier, behind one REST service.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, score, classify, train):
    app.command(rich_help_panel="Use a running service")(command)
app.add_typer(dataset_app, name="dataset", rich_help_panel="Use a running service")
add_packs(models_app)
app.add_typer(models_app, name="models", rich_help_panel="Use a running service")
app.add_typer(jobs_app, name="jobs", rich_help_panel="Use a running service")
app.add_typer(keys_app, name="keys")
app.add_typer(storage_app, name="storage")
app.command()(migrate)
app.command(name="settings")(settings)

Host = Annotated[str | None, typer.Option(help="Address to listen on, instead of FOXHOUND_HOST.")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="TCP port to listen on, instead of FOXHOUND_PORT; 0: a free one.")
]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"foxhound {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a prompt to a trained image classifier, behind one REST service."""


@app.command(epilog=SETTINGS_HINT)
def serve(host: Host = None, port: Port = None) -> None:
    """Serve a whole node: the API with its engine, and a worker; each is restarted when it dies."""
    settings = read_settings(host=host, port=port)
    configure_logging(settings.log_level, settings.log_format, "supervisor")
    with _prepared(settings):
        _serve(settings, _address(host, port))


def _address(host: str | None, port: int | None) -> list[str]:
    """Return the options that give a child process the address that was given to this one."""
    given = {"--host": host, "--port": None if port is None else str(port)}
    return [word for name, value in given.items() if value is not None for word in (name, value)]


def _serve(settings: Settings, address: list[str]) -> None:
    url = f"http://{settings.host}:{settings.port}"
    out.print(f"[bold]Foxhound {__version__}[/bold] serves the [bold]{settings.model_pack}[/bold] pack at {url}")
    out.print(f"Ready when {url}/readyz answers 200; documentation at {url}/docs.", soft_wrap=True)
    out.print("Then try, in another shell:")
    out.print(_TRY.format(url=url), highlight=False, soft_wrap=True)
    command = [sys.executable, "-m", "app.cli.main"]
    children = {"api": [*command, "api", *address], "worker": [*command, "worker"]}
    raise typer.Exit(run_supervised(children, grace_s=settings.shutdown_delay_s + settings.shutdown_grace_s + 5))


# Python's lock goes to a waiting thread after this long, in seconds. With the default of 5 ms, a thread that parses a
# recipe delays the event loop by 5 ms at each of the dozen times that a request of another client needs the lock.
_SWITCH_INTERVAL_S = 0.001

_TRY = """
  curl {url}/generate -H 'Content-Type: application/json' -H 'Accept: image/png' \\
    -d '{{"prompt": "a watercolor painting of a red fox", "seed": 42}}' -o fox.png
  sh examples/fox_or_dog.sh
"""


@app.command(epilog=SETTINGS_HINT)
def api(host: Host = None, port: Port = None) -> None:
    """Serve the API with its engine alone, without a worker."""
    bound_spinning(os.environ)
    from app.api.serving.server import Server, allow_connections
    from app.main import create_app, server_config

    settings = read_settings(host=host, port=port)
    configure_logging(settings.log_level, settings.log_format, "api")
    _check_database(settings)
    _check_store(settings)
    _check_access(settings)
    _check_run_dir(settings)
    _check_device(settings)
    watch_supervisor(lambda: os.kill(os.getpid(), signal.SIGTERM))
    application = create_app(settings, tracing=_tracing(settings))
    config = server_config(application)
    allow_connections(settings.max_connections)
    try:
        listener = config.bind_socket()  # before any model loads
    except SystemExit:  # uvicorn's way to say so, after it has logged why
        refuse(f"Nothing can be served at {settings.host}:{settings.port}. Choose another FOXHOUND_PORT.")
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    server = Server(config, application)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(1)


@app.command(epilog=SETTINGS_HINT)
def worker() -> None:
    """Run background jobs, with the engine of the `foxhound api` of the same node."""
    bound_spinning(os.environ)
    from app.node.client import NodeClient
    from app.worker import leave_process, run_worker

    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format, "worker")
    _check_database(settings)
    _check_store(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch_supervisor(stop.set)
    tracing = _tracing(settings)
    run_worker(settings, NodeClient(settings.engine_socket, tracing=tracing), stop, tracing=tracing)
    leave_process()


@app.command()
def openapi(
    path: Annotated[Path | None, typer.Argument(help="Where to write it; default: standard output.")] = None,
    compat: Annotated[bool, typer.Option("--compat", help="That of the routes for other services' clients.")] = False,
) -> None:
    """Write the OpenAPI file."""
    if path is not None:
        check_folder(path)
    from app.main import create_app

    application = create_app(Settings())
    document = application.state.compat_document() if compat else application.openapi()
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if path is None:
        typer.echo(text, nl=False)
    else:
        path.write_text(text, encoding="utf-8")


@contextmanager
def _prepared(settings: Settings) -> Iterator[None]:
    """Check what must be right before any process starts; hold the data folder until the node ends."""
    from app.db.session import sqlite_path
    from app.node.lock import DataDirInUse, lock_data_dir

    _check_database(settings)
    _check_store(settings)
    _check_access(settings)
    with ExitStack() as held:
        if sqlite_path(settings.resolved_database_url) is not None:  # on Postgres, nodes may share a folder
            try:
                held.enter_context(lock_data_dir(settings.data_dir))
            except DataDirInUse as error:
                refuse(error)
        _check_run_dir(settings)
        yield


def _check_database(settings: Settings) -> None:
    """End the command if the database does not answer, then another try may help, or has not this version's schema."""
    from app.db.migrations import SchemaMismatch, check
    from app.db.outages import is_outage
    from app.jobs.migrations import check_job_engine

    try:
        check(settings.resolved_database_url)
        check_job_engine(settings.resolved_database_url)
    except SchemaMismatch as error:
        refuse(error)
    except Exception as error:
        if not is_outage(error):
            raise
        err.print("The database does not answer. See whether it runs, and whether FOXHOUND_DATABASE_URL names it.")
        raise typer.Exit(1) from None


def _check_store(settings: Settings) -> None:
    """End the command if the database and the data folder do not belong together."""
    from app.services.store.identity import StoreMismatch, check_store
    from app.storage.layout import DataFolder

    try:
        check_store(settings.resolved_database_url, DataFolder(settings.data_dir))
    except StoreMismatch as error:
        refuse(error)


def _check_access(settings: Settings) -> None:
    """End the command if other machines could reach the node, and no API key would protect it."""
    if reason := refuse_open_node(settings):
        refuse(reason)


def _check_run_dir(settings: Settings) -> None:
    """End the command if another node's engine serves the run folder's socket."""
    from app.node.socket import RunDirInUse, check_run_dir

    try:
        check_run_dir(settings.engine_socket)
    except RunDirInUse as error:
        refuse(error)


def _check_device(settings: Settings) -> None:
    """End the command if the device asked for is not there: never a silent change to the CPU."""
    from app.modelpacks.devices import resolve_device
    from app.modelpacks.pack import PackError

    try:
        resolve_device(settings.device)
    except PackError as error:
        refuse(error)


def _tracing(settings: Settings) -> Tracing:
    """Return the tracing that the settings ask for; end the command if its packages are missing."""
    if not settings.otel:
        return NO_TRACING
    try:
        from app.tracing.otel import otel_tracing
    except ImportError:
        refuse("FOXHOUND_OTEL needs OpenTelemetry. Install it with: pip install 'foxhound[otel]'")
    return otel_tracing(__version__)


def main() -> None:
    """Run the command; an unexpected error is one line, unless Python runs in its development mode."""
    try:
        _run()
    except SystemExit as end:
        raise SystemExit(_flushed(end.code)) from None


def _run() -> None:
    try:
        app()
    except OSError as error:
        print_note(file_error(error))
        raise SystemExit(1) from None
    except Exception as error:
        if sys.flags.dev_mode or sys.excepthook is not sys.__excepthook__:
            raise  # `configure_logging` has set a hook that logs it
        print_note(f"Unexpected error: {type(error).__name__}: {error}. PYTHONDEVMODE=1 shows where.")
        raise SystemExit(1) from None


def _flushed(status: str | int | None) -> str | int | None:
    """Write what standard output still holds; return the exit status, 1 if it cannot be written.

    A reader such as `head` that has gone is no message; Python would print one at its end.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print_note(f"Standard output: {file_error(error)}")
        return status or 1
    return status


if __name__ == "__main__":
    main()
