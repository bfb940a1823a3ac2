"""The options and the connection that all commands share which use a running service.

Turns failures of the service, of files and of the network into messages and exit statuses; `foxhound_client` decides
what is sent and retried. The module imports nothing of the server. It runs in the main thread of the command's process.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from app.cli.console import print_note
from foxhound_client import Foxhound, FoxhoundError, Unreachable
from foxhound_client.client import is_url
from foxhound_client.errors import readable

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
# How long to retry until the service has answered for the first time, and afterwards, in seconds.
FIRST_ANSWER_S, RETRY_S = 0.0, 120.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def _checked_url(url: str) -> str:
    if not is_url(url):
        raise typer.BadParameter("give http://host:port")
    return url


def _checked_key(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise typer.BadParameter("give 1 to 255 visible ASCII characters")
    return key


ServerUrl = Annotated[
    str,
    typer.Option(
        "--server",
        envvar=["FOXHOUND_URL", "FOXHOUND_SERVER"],
        callback=_checked_url,
        help="URL of the service.",
        metavar="URL",
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        "--patience",
        min=0,
        max=604_800,
        metavar="SECONDS",
        help="How long to retry while the service does not answer or is full. "
        "Default: 120; 0 until the service has answered for the first time.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]
DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id or name.")]
Key = Annotated[
    str | None,
    typer.Option(
        callback=_checked_key,
        help="Idempotency-Key of the request; by default a hash of it, so that repeating a command is safe.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="FOXHOUND_API_KEY",
        callback=_checked_key,
        hidden=True,
        help="API key of the service. Give it as FOXHOUND_API_KEY: other users see the arguments of a command.",
    ),
]
# Where `keep_api_key` leaves the key for the command.
_API_KEY = "foxhound.api_key"


def keep_api_key(ctx: typer.Context, api_key: ApiKey = None) -> None:
    """Keep the API key for `connected`; the callback of a group of commands."""
    ctx.meta[_API_KEY] = api_key


@contextmanager
def connected(ctx: typer.Context, server: str, patience_s: float | None, hint: str = "") -> Iterator[Foxhound]:
    """Connect to a service; an expected failure inside the block prints a message and ends the command.

    Args:
        ctx: The command's context; its object is called to wait between tries, `time.sleep` by default.
        server: URL of the service.
        patience_s: Seconds to retry while the service does not answer, >= 0; None: the defaults.
        hint: What to do next, printed if the service stops answering or the user interrupts the command.

    Raises:
        typer.Exit: The service refused or did not answer, a file cannot be read or written, or Ctrl-C was pressed.
    """
    try:
        with _client(ctx, server, patience_s) as fox:
            yield fox
    except FoxhoundError as error:
        print_failure(error)
        if hint and isinstance(error, Unreachable) and error.has_answered:
            print_note(hint)
        raise typer.Exit(EXIT_FAILED) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        print_note(file_error(error))
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        print_note(f"\nInterrupted. {hint}".rstrip())
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _client(ctx: typer.Context, server: str, patience_s: float | None) -> Foxhound:
    return Foxhound(
        server,
        ctx.meta.get(_API_KEY),
        retry_for_s=RETRY_S if patience_s is None else patience_s,
        first_answer_s=FIRST_ANSWER_S if patience_s is None else patience_s,
        on_retry=print_note,
        sleep=ctx.obj or time.sleep,
    )


def print_failure(error: FoxhoundError) -> None:
    """Print an error, then each fault of an invalid request."""
    print_note(error)
    for fault in error.faults:
        print_note(f"  {fault}")


def file_error(error: OSError) -> str:
    """Return what failed with a file, as a line."""
    name = "" if error.filename is None else f"{readable(os.fsdecode(error.filename))}: "
    return f"{name}{error.strerror or type(error).__name__}."
