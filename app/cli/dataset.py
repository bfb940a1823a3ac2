"""`foxhound dataset`: make, extend, follow, pause, resume, list and fetch the datasets of a running service.

Speaks to a person, or to a script with `--json`; what is sent and retried is decided in `app/client/`.

Exit status: 0 done; 1 the work has failed, or the service refused; 2 wrong usage; 3 the service does not answer;
130 interrupted, while the work goes on in the service.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from app.cli.console import err, out, say, shown, tell, tell_job, tell_plan
from app.client import datasets
from app.client.download import DownloadFailed, download_zip
from app.client.following import follow as follow_job
from app.client.service import Refused, Service, Unreachable, is_url, readable

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

dataset_app = typer.Typer(help="Datasets of a running service, from the shell.", no_args_is_help=True)


def _checked_url(url: str) -> str:
    if not is_url(url):
        raise typer.BadParameter("give http://host:port")
    return url


def _checked_key(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise typer.BadParameter("give 1 to 255 visible ASCII characters")
    return key


Server = Annotated[
    str,
    typer.Option(envvar="FOXHOUND_SERVER", callback=_checked_url, help="Address of the service.", metavar="URL"),
]
Patience = Annotated[
    float, typer.Option(min=0, max=604_800, help="Seconds without an answer after which to give up (exit status 3).")
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
DatasetId = Annotated[str, typer.Argument(metavar="ID", help="The dataset's id, or its name.")]
Key = Annotated[
    str | None,
    typer.Option(callback=_checked_key, help="Default: follows from the request, so that the same command makes none."),
]
URL, PATIENCE_S = "http://127.0.0.1:8000", 120.0


@dataset_app.command()
def create(
    ctx: typer.Context,
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="JSON, as for POST /datasets; - reads standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made; make nothing.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until it is made, like `follow`.")] = False,
    as_json: AsJson = False,
    idempotency_key: Key = None,
    server: Server = URL,
    patience: Patience = PATIENCE_S,
) -> None:
    """Make a dataset; the same command again finds the one that it made."""
    request = _request(file)
    with _service(ctx, server, patience, "Run the same command again: it makes nothing twice.") as service:
        if dry_run:
            _tell_plan_or_dataset(service, request, as_json)
            return
        dataset, key, was_there = datasets.create(service, request, idempotency_key)
        say(f"Idempotency-Key {key}")
        state = "is there already" if was_there else "is accepted"
        _tell_dataset(dataset, f"{dataset['name']} {state}: {dataset['id']}", as_json)
    _follow_or_hint(ctx, dataset["id"], follow, as_json, server, patience)


@dataset_app.command()
def extend(
    ctx: typer.Context,
    dataset_id: DatasetId,
    images_per_class: Annotated[int, typer.Option(min=0, max=100_000, help="More training images of each class.")] = 0,
    test_images_per_class: Annotated[int, typer.Option(min=0, max=100_000, help="More test images of each class.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made; make nothing.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until it is made, like `follow`.")] = False,
    as_json: AsJson = False,
    idempotency_key: Key = None,
    server: Server = URL,
    patience: Patience = PATIENCE_S,
) -> None:
    """Make more images for a dataset, by its own recipe; once they are made, the same command adds as many again."""
    request = {"train_per_class": images_per_class, "test_per_class": test_images_per_class}
    with _service(ctx, server, patience, "See with `foxhound dataset list` whether it was heard.") as service:
        dataset = datasets.find(service, dataset_id)
        if dry_run:
            tell_plan(datasets.plan_extension(service, dataset, request), as_json)
            return
        dataset = datasets.extend(service, dataset, request, idempotency_key)
    _tell_dataset(dataset, f"{dataset['name']} will have {dataset['progress']['total']} generated images", as_json)
    _follow_or_hint(ctx, dataset["id"], follow, as_json, server, patience)


@dataset_app.command()
def follow(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: Server = URL,
    patience: Patience = PATIENCE_S,
) -> None:
    """Show how far a dataset is until it is made; Ctrl-C leaves it in the making."""
    _follow(ctx, dataset_id, as_json, server, patience)


@dataset_app.command()
def pause(ctx: typer.Context, dataset_id: DatasetId, server: Server = URL, patience: Patience = PATIENCE_S) -> None:
    """Let the making of a dataset rest from its next image on."""
    with _service(ctx, server, patience) as service:
        job = datasets.pause(service, datasets.find(service, dataset_id))
        tell_job(job, "running", "It rests from its next image on")


@dataset_app.command()
def resume(ctx: typer.Context, dataset_id: DatasetId, server: Server = URL, patience: Patience = PATIENCE_S) -> None:
    """Let a paused dataset go on; make what a failed or cancelled one left undone."""
    with _service(ctx, server, patience) as service:
        dataset = datasets.find(service, dataset_id)
        job = datasets.resume(service, dataset)
        tell_job(job, "queued", f"It goes on. {_hint(dataset['id'], server)}")


@dataset_app.command()
def repair(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: Server = URL,
    patience: Patience = PATIENCE_S,
) -> None:
    """Look at every file of a dataset and draw lost images again; stay until that is done."""
    with _service(ctx, server, patience, "It goes on in the service. See GET /jobs.") as service:
        job = datasets.repair(service, datasets.find(service, dataset_id))
        with shown(as_json) as show:
            for state in follow_job(service, job["id"]):
                show(job := state)
    if job["error"] is not None:
        say(f"{job['error']['title']}: {job['error']['detail']} ({job['error']['code']})")
    result = job["result"]
    if result is None:
        raise typer.Exit(EXIT_FAILED)
    if not as_json:
        _tell_repair(result)
    if result["num_unrestored"]:
        raise typer.Exit(EXIT_FAILED)


@dataset_app.command()
def export(
    ctx: typer.Context,
    dataset_id: DatasetId,
    output: Annotated[Path, typer.Option("-o", "--output", dir_okay=False, help="The zip file to be; replaced whole.")],
    server: Server = URL,
    patience: Patience = PATIENCE_S,
) -> None:
    """Download a dataset as a zip; run again after an interruption, it goes on where it was."""
    if not output.parent.is_dir():
        say(f"There is no folder {output.parent}")
        raise typer.Exit(EXIT_USAGE)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        _service(ctx, server, patience, f"Run the same command again: {output}.part is kept.") as service,
        Progress(*columns, console=err, disable=not err.is_terminal) as progress,
    ):
        task = progress.add_task("", total=None)
        path = datasets.archive_path(datasets.find(service, dataset_id))
        download_zip(
            service, path, output, lambda done, total: progress.update(task, completed=done, total=total, refresh=False)
        )
    tell(f"{output}: {output.stat().st_size} bytes")


@dataset_app.command("list")
def list_datasets(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most that are shown.")] = 20,
    as_json: AsJson = False,
    server: Server = URL,
    patience: Patience = PATIENCE_S,
) -> None:
    """Show the datasets, newest first."""
    with _service(ctx, server, patience) as service:
        found = [one for one, _ in zip(datasets.everything(service), range(limit), strict=False)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("ID", "Name", "Status", "Images", "Classes")
    table.columns[0].no_wrap = True
    for one in found:
        images = f"{one['num_images']} of {max(one['progress']['total'], one['num_images'])}"
        table.add_row(readable(one["id"]), readable(one["name"]), one["status"], images, str(len(one["classes"])))
    out.print(table)


def _tell_plan_or_dataset(service: Service, request: dict[str, Any], as_json: bool) -> None:
    """Tell what a request would make, or what it has made already."""
    try:
        tell_plan(datasets.plan(service, request), as_json)
    except Refused as refused:
        made = datasets.made_by(service, request, refused)
        if made is None:
            raise
        images = f"{made['num_images']} of {max(made['progress']['total'], made['num_images'])} images"
        _tell_dataset(made, f"{made['name']} is there already, {made['status']}, {images}: {made['id']}", as_json)


def _tell_repair(result: dict[str, Any]) -> None:
    counts = f"{result['num_restored']} restored, {result['num_redrawn']} drawn anew as other images"
    tell(f"{result['num_checked']} files: {counts}, {result['num_unrestored']} still lost")
    for image in result["unrestored"]:
        tell(f"{image['path']} ({image['code']}): if it was uploaded, upload the same file again")


def _tell_dataset(dataset: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataset))
    else:
        tell(words)


def _follow_or_hint(
    ctx: typer.Context, dataset_id: str, follow: bool, as_json: bool, server: str, patience: float
) -> None:
    """Stay until a dataset is made, if asked to; else say how."""
    if follow:
        _follow(ctx, dataset_id, as_json, server, patience)
    elif not as_json:
        tell(_hint(dataset_id, server))


def _follow(ctx: typer.Context, dataset_id: str, as_json: bool, server: str, patience: float) -> None:
    """Show a dataset's job until it ends; end the command with what became of it."""
    with _service(ctx, server, patience, f"It goes on in the service. {_hint(dataset_id, server)}") as service:
        dataset = datasets.find(service, dataset_id)
        if dataset["job_id"] is not None:
            with shown(as_json) as show:
                for job in follow_job(service, dataset["job_id"]):
                    show(job)
                error = job["error"]
            if error is not None:
                say(f"{error['title']}: {error['detail']} ({error['code']})")
            dataset = datasets.find(service, dataset["id"])
    if not as_json:
        out.print(f"{dataset['name']} is {dataset['status']}: {dataset['num_images']} images", highlight=False)
    if dataset["status"] not in ("ready", "empty"):
        raise typer.Exit(EXIT_FAILED)


def _request(file: typer.FileBinaryRead) -> dict[str, Any]:
    """Read the body of the request, or end the command; as the service does, in UTF-8, 16 or 32, with a BOM or not."""
    name = getattr(file, "name", "standard input")
    try:
        request = json.loads(file.read(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        say(f"{name} is no text in UTF-8; save it as UTF-8")
        raise typer.Exit(EXIT_USAGE) from None
    except (ValueError, RecursionError) as error:
        say(f"{name} is no JSON: {error}")
        raise typer.Exit(EXIT_USAGE) from None
    if not isinstance(request, dict):
        say(f"{name} holds no JSON object")
        raise typer.Exit(EXIT_USAGE)
    return request


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _hint(dataset_id: str, server: str) -> str:
    return f"Follow it: foxhound dataset follow {dataset_id} --server {server}"


@contextmanager
def _service(ctx: typer.Context, server: str, patience_s: float, hint: str = "") -> Iterator[Service]:
    """Give the service, and end the command in words when something goes wrong.

    The context's object is what waits between tries, `time.sleep` by default.
    """
    try:
        with closing(Service(server, patience_s=patience_s, sleep=ctx.obj or time.sleep, notify=say)) as service:
            yield service
    except Refused as refused:
        for line in refused.lines:
            say(line)
        raise typer.Exit(EXIT_FAILED) from None
    except (DownloadFailed, OSError) as error:
        say(error)
        raise typer.Exit(EXIT_FAILED) from None
    except Unreachable as error:
        say(f"{error}\n{hint}".rstrip())
        raise typer.Exit(EXIT_UNREACHABLE) from None
    except KeyboardInterrupt:
        say(f"\nInterrupted. {hint}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
