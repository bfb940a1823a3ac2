"""`foxhound models packs` and `fetch`: list the model packs; download packs and backbones in advance.

Loads no model and imports no engine. It runs in the process of the command.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from app.cli.connection import AsJson
from app.cli.console import err, out
from app.cli.settings import read_settings


def list_packs(as_json: AsJson = False) -> None:
    """List the packs, their revisions, sizes and whether they are downloaded."""
    from app.modelpacks.pack import PackError, find_pack

    settings = read_settings()
    rows: list[dict[str, Any]] = []
    for name in ("demo", "sd15"):
        row: dict[str, Any] = {"name": name, "revision": "", "licence": "", "bytes": 0, "here": False}
        try:
            pack = find_pack(name, settings.resolved_models_dir)
        except PackError as error:
            rows.append({**row, "detail": error.detail})
            continue
        facts = {
            "revision": pack.revision,
            "licence": pack.licence,
            "bytes": pack.total_bytes,
            "files": len(pack.files),
        }
        rows.append({**row, **facts, "here": bool(pack.files), "quality": pack.quality, "made": pack.made})
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("Pack", "Revision", "Licence", "Size", "Here")
    for row in rows:
        size, here = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else "", "yes" if row["here"] else "no"
        table.add_row(row["name"], row["revision"], row["licence"], size, here)
    out.print(table)
    for row in rows:
        if measured := _quality_line(row.get("quality", {})):
            out.print(f"{row['name']} as measured: {measured}", highlight=False, soft_wrap=True)


def _quality_line(quality: Mapping[str, Any]) -> str:
    """Return a pack's measured quality as one line; figures without a measurement are left out."""
    generated, drawings = quality.get("generated", {}), quality.get("held_out_drawings", {})
    figures = (
        ("CLIP class {:.0%}", generated.get("clip_class_accuracy")),
        ("ResNet18 {:.0%}", generated.get("classifier_top1")),
        ("VAE {:.1f} dB", drawings.get("vae_psnr_db", {}).get("overall")),
    )
    texts = (wording.format(value) for wording, value in figures if value is not None)
    return ", ".join(texts).replace("%", " %")


def fetch_models(
    name: Annotated[str, typer.Argument(help="Name of the pack, e.g. sd15; or the word `backbone`.")],
    backbone: Annotated[str | None, typer.Argument(help="After `backbone`: name of a model of timm's hub.")] = None,
    local: Annotated[
        Path | None,
        typer.Option("--from", help="Copy the backbone from this folder (config.json and model.safetensors)."),
    ] = None,
) -> None:
    """Download a pack or a backbone. Run again after an interruption, it resumes the download."""
    from app.modelpacks.pack import PackError

    if (name == "backbone") != (backbone is not None) or (local is not None and backbone is None):
        err.print("Give `fetch PACK`, or `fetch backbone NAME` with or without --from.")
        raise typer.Exit(2)
    models_dir = read_settings().resolved_models_dir
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=out) as progress:
        try:
            text = _fetch(name, backbone, models_dir, local, _Shown(progress))
        except PackError as error:
            err.print(error.detail)
            raise typer.Exit(1) from None
    out.print(text)


def _fetch(name: str, backbone: str | None, models_dir: Path, local: Path | None, shown: "_Shown") -> str:
    """Fetch a pack or a backbone and return what to print."""
    if backbone is None:
        from app.modelpacks.fetch import fetch_pack

        pack = fetch_pack(name, models_dir, shown)
        return f"{pack.name} {pack.revision} is complete."
    from app.modelpacks.fetch_backbone import fetch_backbone

    model = fetch_backbone(backbone, models_dir, shown, local=local)
    return f"The backbone {model.name} ({model.architecture}, {model.num_bytes / 1e6:.1f} MB) is complete."


def add_packs(models_app: typer.Typer) -> None:
    """Add the commands of this module to the group of models."""
    models_app.command("packs")(list_packs)
    models_app.command("fetch")(fetch_models)


class _Shown:
    """Shows the progress of each file as a bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, file: str, done_bytes: int, total_bytes: int | None) -> None:
        if file not in self._tasks:
            self._tasks[file] = self._progress.add_task(file, total=total_bytes)
        self._progress.update(self._tasks[file], completed=done_bytes, total=total_bytes)
