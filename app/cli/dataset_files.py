"""`foxhound dataset upload` and `export`: files into a dataset, and a dataset into a file.

Imports nothing of the server. It runs in the main thread of the command's process. Exit statuses as of `dataset.py`.
"""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.connection import EXIT_FAILED, AsJson, DatasetId, Patience, ServerUrl, connected
from app.cli.console import download_display, print_json, print_note, print_result, progress_display
from app.cli.files import check_folder, print_file
from foxhound_client.client import DEFAULT_URL
from foxhound_client.models import Split


def upload(
    ctx: typer.Context,
    dataset_id: DatasetId,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, metavar="FILE...", help="Image files.")],
    class_name: Annotated[str, typer.Option("--class", help="The class that the images show.")],
    split: Annotated[Split, typer.Option(help="The split that they belong to.")] = "train",
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Add image files to a dataset. Files that it has already are refused; run again, the command adds the rest."""
    hint = "Run the same command again: no file is stored twice."
    with connected(ctx, server, patience_s, hint) as fox, progress_display(as_json) as display:
        found = fox.datasets.find(dataset_id).id
        result = fox.datasets.upload(
            found,
            files,
            class_name=class_name,
            split=split,
            on_progress=lambda done, total, unit: display("uploading", done, total, f"{done} of {total} {unit}"),
        )
    new = [one for one in result.files if one.refused and not one.refused.duplicate_of]
    if as_json:
        print_json(result)
    else:
        print_result(f"{result.num_accepted} files were added, {result.num_refused} refused.")
    for one in result.files:
        if one.refused:
            print_note(f"{files[one.index]}: {one.refused.detail}")
    if new:
        raise typer.Exit(EXIT_FAILED)


def export(
    ctx: typer.Context,
    dataset_id: DatasetId,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            dir_okay=False,
            help="Path of the zip file; an existing file is replaced after the download.",
        ),
    ],
    split: Annotated[Split | None, typer.Option(help="One split alone; default: all.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Download a dataset as a zip file. Run again after an interruption, it resumes the download."""
    check_folder(output)
    hint = f"Run the same command again: {output}.part is kept."
    with connected(ctx, server, patience_s, hint) as fox, download_display() as display:
        dataset = fox.datasets.find(dataset_id)
        fox.datasets.archive(dataset.id, output, split=split, on_progress=display)
    print_file(output, as_json)
