"""`foxhound keys`: creates, lists and revokes API keys, in the database directly.

Imports no engine and no HTTP. It runs in the process of the command, beside a node or without one. A key is printed or
written to a file once; neither the database nor the log has it.

Exit status: 0 done; 1 refused; 2 wrong usage; 78 wrong settings.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from app.access.caller import AccessPolicy, Scope, Shares
from app.cli.connection import AsJson
from app.cli.console import err, out, print_note, print_result
from app.cli.database import opened
from app.cli.settings import read_settings
from app.config import Settings

if TYPE_CHECKING:
    from app.access.keys import KeyRecord, NewKey

keys_app = typer.Typer(help="API keys: who may use this service, and for what.", no_args_is_help=True)

_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3_650)

Name = Annotated[str, typer.Argument(help="The key's name: letters, digits, dots, hyphens, underscores.")]
RequestsPerMinute = Annotated[int | None, typer.Option(min=1, max=100_000, help="Requests in any minute on one node.")]
ConcurrentRequests = Annotated[
    int | None, typer.Option(min=1, max=100_000, help="Requests that run at once on one node.")
]
ConcurrentImages = Annotated[
    int | None, typer.Option(min=1, max=10_000, help="Images that `POST /generate` draws at once on one node.")
]
PixelSteps = Annotated[
    int | None, typer.Option(min=0, help="Images x steps x width x height that are accepted in a day (UTC).")
]
StoredMb = Annotated[
    int | None, typer.Option(min=0, help="Megabytes of images and models at which new work is refused.")
]


def _duration(text: str) -> timedelta:
    """Return a duration such as `90d`.

    Raises:
        typer.BadParameter: The text is no duration of one second to ten years.
    """
    match = _DURATION.fullmatch(text)
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < duration <= _LONGEST:
        raise typer.BadParameter("give a number and s, m, h, d or w, such as 90d; at most 3650d")
    return duration


@keys_app.command()
def create(
    name: Name,
    scopes: Annotated[
        list[Scope], typer.Option("--scope", help="What the key allows; repeat the option. `admin` allows everything.")
    ],
    expires: Annotated[
        timedelta | None,
        typer.Option(parser=_duration, metavar="DURATION", help="Time until the key expires, such as 90d or 12h."),
    ] = None,
    requests_per_minute: RequestsPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    concurrent_images: ConcurrentImages = None,
    pixel_steps_per_day: PixelSteps = None,
    stored_mb: StoredMb = None,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write the key to this file, readable by its owner alone; print its path."),
    ] = None,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Create the key only if the node would not start without one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It cannot be printed again; a lost key is revoked and replaced."""
    from app.access.keys import create_key
    from app.db.base import utc_now

    settings = read_settings()
    if if_needed and not _policy(settings).needs_a_key:
        return

    def hand_over(new: "NewKey") -> None:
        if output is not None:
            _write_private(output, new.key)

    with _refusals(), opened(settings) as db:
        expires_at = None if expires is None else utc_now() + expires
        bounds = Shares(requests_per_minute, concurrent_requests, concurrent_images, pixel_steps_per_day, stored_mb)
        new = create_key(
            db, name, set(scopes), expires_at=expires_at, shares=bounds, if_none=if_needed, hand_over=hand_over
        )
    if new is not None:
        _print_new(new, output, as_json)


@keys_app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List all keys, revoked and expired ones too, oldest first."""
    from app.access.keys import list_keys

    with opened(read_settings()) as db:
        records = list_keys(db)
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records], default=lambda moment: moment.isoformat()))
        return
    table = Table("name", Column("prefix", no_wrap=True), "scopes", "state", "created", "expires", "last used")
    for record in records:
        table.add_row(*_cells(record))
    out.print(table)
    for record in records:
        if record.shares and record.revoked_at is None:
            print_note(f"{record.name}: {_bounds(record)}.")


@keys_app.command()
def limit(
    name: Name,
    requests_per_minute: RequestsPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    concurrent_images: ConcurrentImages = None,
    pixel_steps_per_day: PixelSteps = None,
    stored_mb: StoredMb = None,
) -> None:
    """Replace the bounds of a key. Those that are not given follow the settings of each node again."""
    from app.access.keys import limit_key

    shares = Shares(requests_per_minute, concurrent_requests, concurrent_images, pixel_steps_per_day, stored_mb)
    with _refusals(), opened(read_settings()) as db:
        record = limit_key(db, name, shares)
    print_result(f"The bounds of the key {record.name}: {_bounds(record)}.")


@keys_app.command()
def revoke(name: Name) -> None:
    """Revoke a key. All nodes refuse it within 5 seconds; requests that run are completed."""
    from app.access.keys import revoke_key

    with _refusals(), opened(read_settings()) as db:
        record = revoke_key(db, name)
    print_result(f"The key {record.name} ({record.prefix}...) is revoked.")


def refuse_open_node(settings: Settings) -> str | None:
    """Return why a node must not start: others can reach it, and no key protects it; None if it may."""
    from app.access.keys import has_any_key

    if not _policy(settings).needs_a_key:
        return None
    with opened(settings) as db, db.snapshot() as session:
        if has_any_key(session):
            return None
    return (
        f"FOXHOUND_HOST is {settings.host}, which other machines may reach, and there is no API key. Create one with "
        "`foxhound keys create NAME --scope read --scope generate`, or set FOXHOUND_ALLOW_ANONYMOUS=true to let "
        "everybody in."
    )


def _policy(settings: Settings) -> AccessPolicy:
    return AccessPolicy.of(settings.host, allows_anonymous=settings.allow_anonymous, reads_own=settings.read_own)


@contextmanager
def _refusals() -> Iterator[None]:
    """Print why a key was refused, or its file could not be written, and end the command."""
    from app.access.keys import KeyRefused

    try:
        yield
    except (KeyRefused, OSError) as error:
        err.print(str(error), highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _write_private(path: Path, key: str) -> None:
    """Write a key to a file of mode 0600, in place of an existing one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(f"{key}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _print_new(new: "NewKey", output: Path | None, as_json: bool) -> None:
    if output is not None:
        print_result(f"The key {new.name} is in {output}.")
    elif as_json:
        typer.echo(json.dumps(asdict(new)))
    else:
        typer.echo(new.key)
        print_note("Keep the key: it is not shown again. Send it as `Authorization: Bearer KEY`.")


def _cells(record: "KeyRecord") -> list[str]:
    from app.db.base import utc_now

    expires, used = record.expires_at, record.last_used_on
    return [
        record.name,
        record.prefix,
        " ".join(record.scopes),
        record.state(utc_now()),
        f"{record.created_at:%Y-%m-%d}",
        "never" if expires is None else f"{expires:%Y-%m-%d %H:%M}",
        "never" if used is None else f"{used:%Y-%m-%d}",
    ]


def _bounds(record: "KeyRecord") -> str:
    named = (f"{name.replace('_', ' ')} {value:,}" for name, value in (record.shares or {}).items())
    return ", ".join(named) or "as the node's settings"
