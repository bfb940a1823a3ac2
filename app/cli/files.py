"""Writes what a command downloads or makes, and says where it is.

Imports nothing of the server. It runs in the main thread of the command's process.
"""

import os
from pathlib import Path

import typer

from app.cli.connection import EXIT_USAGE
from app.cli.console import print_json, print_note, print_result


def check_folder(path: Path) -> None:
    """End the command with status 2 if a file's folder does not exist."""
    if not path.parent.is_dir():
        print_note(f"The folder {path.parent} does not exist.")
        raise typer.Exit(EXIT_USAGE)


def print_file(path: Path, as_json: bool) -> None:
    """Print a file's path and size."""
    num_bytes = path.stat().st_size
    if as_json:
        print_json({"path": str(path), "num_bytes": num_bytes})
    else:
        print_result(f"{path}: {num_bytes} bytes")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in place of an existing one; nobody sees a part of it.

    Raises:
        OSError: The file cannot be written; an existing one is as before.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
