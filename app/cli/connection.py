"""The options and the connection that all commands of `foxhound dataset` share.

Turns failures of the service, of files and of the network into messages and exit statuses; `app/client/` decides what
is sent and retried. The module imports nothing of the server. It runs in the main thread of the command's process.
"""

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer

from app.cli.console import print_note
from app.client.download import DownloadFailed
from app.client.service import Refused, Service, Unreachable, is_url

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130
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
        "--server", envvar="FOXHOUND_SERVER", callback=_checked_url, help="URL of the service.", metavar="URL"
    ),
]
RetryFor = Annotated[
    float,
    typer.Option(
        "--patience",
        min=0,
        max=604_800,
        help="Seconds to retry while the service does not answer; then exit with status 3.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DatasetId = Annotated[str, typer.Argument(metavar="ID", help="The dataset's id or name.")]
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
DEFAULT_URL, DEFAULT_RETRY_S = "http://127.0.0.1:8000", 120.0


def keep_api_key(ctx: typer.Context, api_key: ApiKey = None) -> None:
    """Keep the API key for `connected`; the callback of a group of commands."""
    ctx.meta[_API_KEY] = api_key


@contextmanager
def connected(ctx: typer.Context, server: str, retry_for_s: float, hint: str = "") -> Iterator[Service]:
    """Connect to a service; an expected failure inside the block prints a message and ends the command.

    Args:
        ctx: The command's context; its object is called to wait between tries, `time.sleep` by default.
        server: URL of the service.
        retry_for_s: Seconds to retry while the service does not answer, >= 0.
        hint: What to do next, printed if the service does not answer or the user interrupts the command.

    Raises:
        typer.Exit: The service refused or did not answer, a file cannot be written, or Ctrl-C was pressed.
    """
    try:
        sleep = ctx.obj or time.sleep
        service = Service(
            server, retry_for_s=retry_for_s, sleep=sleep, notify=print_note, api_key=ctx.meta.get(_API_KEY)
        )
        with closing(service):
            yield service
    except Refused as refused:
        for line in refused.lines:
            print_note(line)
        raise typer.Exit(EXIT_FAILED) from None
    except (DownloadFailed, OSError) as error:
        print_note(error)
        raise typer.Exit(EXIT_FAILED) from None
    except Unreachable as error:
        print_note(f"{error}\n{hint}".rstrip())
        raise typer.Exit(EXIT_UNREACHABLE) from None
    except KeyboardInterrupt:
        print_note(f"\nInterrupted. {hint}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
