"""Reads a request's JSON body from a file or standard input.

Imports nothing of the server. It runs in the main thread of the command's process.
"""

import json
from typing import Any

import typer

from app.cli.connection import EXIT_USAGE
from app.cli.console import print_note


def read_body(file: typer.FileBinaryRead) -> dict[str, Any]:
    """Read a JSON object from a file in UTF-8, UTF-16 or UTF-32, with or without BOM, as the service does.

    Raises:
        typer.Exit: Status 2: the file holds no JSON object.
    """
    name = getattr(file, "name", "standard input")
    try:
        request = json.loads(file.read(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        print_note(f"{name} is not UTF-8 text. Save it as UTF-8.")
        raise typer.Exit(EXIT_USAGE) from None
    except (ValueError, RecursionError) as error:
        print_note(f"{name} is not valid JSON: {error}")
        raise typer.Exit(EXIT_USAGE) from None
    if not isinstance(request, dict):
        print_note(f"{name} does not hold a JSON object.")
        raise typer.Exit(EXIT_USAGE)
    if "idempotency_key" in request:
        print_note(f"{name} has an idempotency_key. Give it as --idempotency-key.")
        raise typer.Exit(EXIT_USAGE)
    return request


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
