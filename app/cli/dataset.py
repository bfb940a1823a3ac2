"""`foxhound dataset`: create, extend, follow, pause, resume, repair, export and list datasets of a running service.

Prints for a person, or with `--json` for a script. `app/client/` decides what is sent and retried; the module imports
nothing of the server. It runs in the main thread of the command's process.

Exit status: 0 done; 1 the work failed or the service refused; 2 wrong usage; 3 the service does not answer;
130 interrupted (the work continues in the service).
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from app.cli.connection import (
    DEFAULT_RETRY_S,
    DEFAULT_URL,
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    DatasetId,
    Key,
    RetryFor,
    ServerUrl,
    connected,
    keep_api_key,
)
from app.cli.console import err, job_display, out, print_job, print_note, print_plan, print_repair, print_result
from app.client import datasets
from app.client.download import download_zip
from app.client.following import follow as follow_job
from app.client.service import Refused, Service, readable

dataset_app = typer.Typer(callback=keep_api_key, help="Datasets of a running service.", no_args_is_help=True)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be generated; generate nothing.")]
Follow = Annotated[bool, typer.Option("--follow", help="Wait for the job to end and print its progress.")]


@dataset_app.command()
def create(
    ctx: typer.Context,
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(help="JSON file, the body of POST /datasets; - reads standard input.")
    ],
    dry_run: DryRun = False,
    follow: Follow = False,
    as_json: AsJson = False,
    idempotency_key: Key = None,
    server: ServerUrl = DEFAULT_URL,
    retry_for_s: RetryFor = DEFAULT_RETRY_S,
) -> None:
    """Create a dataset. The same command again returns the dataset that it created."""
    request = _request(file)
    with connected(ctx, server, retry_for_s, "Run the same command again: it creates nothing twice.") as service:
        if dry_run:
            _print_plan_or_dataset(service, request, as_json)
            return
        dataset, key, existed = datasets.create(service, request, idempotency_key)
        print_note(f"Idempotency-Key {key}")
        state = "exists already" if existed else "is accepted"
        _print_dataset(dataset, f"{dataset['name']} {state}: {dataset['id']}", as_json)
    _follow_or_hint(ctx, dataset["id"], follow, as_json, server, retry_for_s)


@dataset_app.command()
def extend(
    ctx: typer.Context,
    dataset_id: DatasetId,
    images_per_class: Annotated[
        int, typer.Option(min=0, max=100_000, help="Training images to add to each class.")
    ] = 0,
    validation_images_per_class: Annotated[
        int, typer.Option(min=0, max=100_000, help="Validation images to add to each class.")
    ] = 0,
    test_images_per_class: Annotated[
        int, typer.Option(min=0, max=100_000, help="Test images to add to each class.")
    ] = 0,
    dry_run: DryRun = False,
    follow: Follow = False,
    as_json: AsJson = False,
    idempotency_key: Key = None,
    server: ServerUrl = DEFAULT_URL,
    retry_for_s: RetryFor = DEFAULT_RETRY_S,
) -> None:
    """Generate more images for a dataset, by its own recipe. Repeated after the job has ended, it adds more."""
    request = {"train_per_class": images_per_class, "test_per_class": test_images_per_class}
    if validation_images_per_class:  # a service of a release before 0.3 does not know the field
        request["validation_per_class"] = validation_images_per_class
    with connected(
        ctx, server, retry_for_s, "Check with `foxhound dataset list` whether the request arrived."
    ) as service:
        dataset = datasets.find(service, dataset_id)
        if dry_run:
            print_plan(datasets.plan_extension(service, dataset, request), as_json)
            return
        dataset = datasets.extend(service, dataset, request, idempotency_key)
    _print_dataset(dataset, f"{dataset['name']} will have {dataset['progress']['total']} generated images", as_json)
    _follow_or_hint(ctx, dataset["id"], follow, as_json, server, retry_for_s)


@dataset_app.command()
def follow(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    retry_for_s: RetryFor = DEFAULT_RETRY_S,
) -> None:
    """Print a dataset's progress until its job ends. Ctrl-C ends the command; the job continues."""
    _follow(ctx, dataset_id, as_json, server, retry_for_s)


@dataset_app.command()
def pause(
    ctx: typer.Context, dataset_id: DatasetId, server: ServerUrl = DEFAULT_URL, retry_for_s: RetryFor = DEFAULT_RETRY_S
) -> None:
    """Pause the generation of a dataset after its current image."""
    with connected(ctx, server, retry_for_s) as service:
        job = datasets.pause(service, datasets.find(service, dataset_id))
        print_job(job, "running", "It pauses after the current image.")


@dataset_app.command()
def resume(
    ctx: typer.Context, dataset_id: DatasetId, server: ServerUrl = DEFAULT_URL, retry_for_s: RetryFor = DEFAULT_RETRY_S
) -> None:
    """Resume a paused dataset, or retry what a failed or cancelled job did not generate."""
    with connected(ctx, server, retry_for_s) as service:
        dataset = datasets.find(service, dataset_id)
        job = datasets.resume(service, dataset)
        print_job(job, "queued", _hint(dataset["id"], server))


@dataset_app.command()
def repair(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    retry_for_s: RetryFor = DEFAULT_RETRY_S,
) -> None:
    """Check every file of a dataset and generate lost images again. Waits for the job to end."""
    with connected(ctx, server, retry_for_s, "The job continues in the service. See GET /jobs.") as service:
        job = datasets.repair(service, datasets.find(service, dataset_id))
        result = _show_until_end(service, job["id"], as_json)["result"]
    if result is None:
        raise typer.Exit(EXIT_FAILED)
    if not as_json:
        print_repair(result)
    if result["num_unrestored"]:
        raise typer.Exit(EXIT_FAILED)


@dataset_app.command()
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
    server: ServerUrl = DEFAULT_URL,
    retry_for_s: RetryFor = DEFAULT_RETRY_S,
) -> None:
    """Download a dataset as a zip file. Run again after an interruption, it resumes the download."""
    if not output.parent.is_dir():
        print_note(f"The folder {output.parent} does not exist.")
        raise typer.Exit(EXIT_USAGE)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        connected(ctx, server, retry_for_s, f"Run the same command again: {output}.part is kept.") as service,
        Progress(*columns, console=err, disable=not err.is_terminal) as progress,
    ):
        task = progress.add_task("", total=None)
        path = datasets.archive_path(datasets.find(service, dataset_id))
        download_zip(
            service, path, output, lambda done, total: progress.update(task, completed=done, total=total, refresh=False)
        )
    print_result(f"{output}: {output.stat().st_size} bytes")


@dataset_app.command("list")
def list_datasets(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of datasets.")] = 20,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    retry_for_s: RetryFor = DEFAULT_RETRY_S,
) -> None:
    """List the datasets, newest first."""
    with connected(ctx, server, retry_for_s) as service:
        found = [one for one, _ in zip(datasets.list_all(service), range(limit), strict=False)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("ID", "Name", "Status", "Images", "Classes")
    table.columns[0].no_wrap = True
    for one in found:
        about = (one["status"], _images_of(one), str(len(one["classes"])))
        table.add_row(readable(one["id"]), readable(one["name"]), *about)
    out.print(table)


def _print_plan_or_dataset(service: Service, request: dict[str, Any], as_json: bool) -> None:
    """Print what a request would generate, or the dataset that the same request created before."""
    try:
        print_plan(datasets.plan(service, request), as_json)
    except Refused as refused:
        made = datasets.created_before(service, request, refused)
        if made is None:
            raise
        state = f"{made['status']}, {_images_of(made)} images"
        _print_dataset(made, f"{made['name']} exists already, {state}: {made['id']}", as_json)


def _images_of(dataset: dict[str, Any]) -> str:
    """Return how many images a dataset has, and how many it will have."""
    return f"{dataset['num_images']} of {max(dataset['progress']['total'], dataset['num_images'])}"


def _print_dataset(dataset: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataset))
    else:
        print_result(line)


def _follow_or_hint(
    ctx: typer.Context, dataset_id: str, follow: bool, as_json: bool, server: str, retry_for_s: float
) -> None:
    """Follow a dataset's job if `follow` is set, else print the command that does."""
    if follow:
        _follow(ctx, dataset_id, as_json, server, retry_for_s)
    elif not as_json:
        print_result(_hint(dataset_id, server))


def _follow(ctx: typer.Context, dataset_id: str, as_json: bool, server: str, retry_for_s: float) -> None:
    """Display a dataset's job until it ends.

    Raises:
        typer.Exit: Status 1: the dataset is neither ready nor empty.
    """
    with connected(
        ctx, server, retry_for_s, f"The job continues in the service. {_hint(dataset_id, server)}"
    ) as service:
        dataset = datasets.find(service, dataset_id)
        if dataset["job_id"] is not None:
            _show_until_end(service, dataset["job_id"], as_json)
            dataset = datasets.find(service, dataset["id"])
    if not as_json:
        out.print(f"{dataset['name']} is {dataset['status']}: {dataset['num_images']} images", highlight=False)
    if dataset["status"] not in ("ready", "empty"):
        raise typer.Exit(EXIT_FAILED)


def _show_until_end(service: Service, job_id: str, as_json: bool) -> dict[str, Any]:
    """Display a job until it ends, then print its error if it has one; return its last state."""
    with job_display(as_json) as show:
        for job in follow_job(service, job_id):
            show(job)
    if (error := job["error"]) is not None:
        print_note(f"{error['title']}: {error['detail']} ({error['code']})")
    return job


def _request(file: typer.FileBinaryRead) -> dict[str, Any]:
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
    return request


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _hint(dataset_id: str, server: str) -> str:
    return f"Follow it: foxhound dataset follow {dataset_id} --server {server}"
