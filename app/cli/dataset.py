"""`foxhound dataset`: create, extend, follow, pause, resume, repair and list datasets of a service.

`foxhound_client` decides what is sent and retried; the module imports nothing of the server. It runs in the main thread
of the command's process.

Exit status: 0 done; 1 the work failed, or the service refused or does not answer; 2 wrong usage; 130 interrupted (the
work continues in the service).
"""

from itertools import islice
from typing import Annotated, Any

import typer

from app.cli.bodies import read_body
from app.cli.connection import (
    EXIT_FAILED,
    AsJson,
    DatasetId,
    Key,
    Patience,
    ServerUrl,
    connected,
    keep_api_key,
)
from app.cli.console import (
    print_job,
    print_json,
    print_note,
    print_plan,
    print_repair,
    print_result,
    print_table,
)
from app.cli.dataset_files import export, upload
from app.cli.following import show_until_end
from foxhound_client import Foxhound, FoxhoundError
from foxhound_client.client import DEFAULT_URL
from foxhound_client.events import ENDED
from foxhound_client.models import DatasetRead, JobRead, RepairJob

dataset_app = typer.Typer(callback=keep_api_key, help="Datasets of a running service.", no_args_is_help=True)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be generated; generate nothing.")]
Follow = Annotated[bool, typer.Option("--follow", help="Wait for the job to end and print its progress.")]
dataset_app.command()(upload)
dataset_app.command()(export)


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
    patience_s: Patience = None,
) -> None:
    """Create a dataset. The same command again returns the dataset that it created."""
    request = read_body(file)
    with connected(ctx, server, patience_s, "Run the same command again: it creates nothing twice.") as fox:
        if dry_run:
            _print_plan_or_dataset(fox, request, as_json)
            return
        ensured = fox.datasets.ensure(idempotency_key=idempotency_key, **request)
        print_note(f"Idempotency-Key {ensured.idempotency_key}")
    dataset = ensured.dataset
    if not (follow and as_json):
        state = "exists already" if ensured.existed else "is accepted"
        _print_dataset(dataset, f"{dataset.name} {state}: {dataset.id}", as_json)
    _follow_or_hint(ctx, dataset.id, follow, as_json, server, patience_s)


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
    patience_s: Patience = None,
) -> None:
    """Generate more images for a dataset, by its own recipe. Repeated after the job has ended, it adds more."""
    request = {"train_per_class": images_per_class, "test_per_class": test_images_per_class}
    if validation_images_per_class:  # a service of a release before 0.3 does not know the field
        request["validation_per_class"] = validation_images_per_class
    with connected(ctx, server, patience_s, "Check with `foxhound dataset list` whether the request arrived.") as fox:
        dataset = fox.datasets.find(dataset_id)
        if dry_run:
            print_plan(fox.datasets.plan_extension(dataset.id, **request), as_json)
            return
        dataset = fox.datasets.extend(dataset.id, idempotency_key=idempotency_key, **request)
    if not (follow and as_json):
        line = f"{dataset.name} will have {dataset.progress.total} generated images"
        _print_dataset(dataset, line, as_json)
    _follow_or_hint(ctx, dataset.id, follow, as_json, server, patience_s)


@dataset_app.command()
def show(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Show a dataset."""
    with connected(ctx, server, patience_s) as fox:
        dataset = fox.datasets.find(dataset_id)
    classes = ", ".join(entry.name for entry in dataset.classes[:20])
    line = f"{dataset.name} is {dataset.status}, {_images_of(dataset)} images of {classes}: {dataset.id}"
    _print_dataset(dataset, line, as_json)


@dataset_app.command()
def follow(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Print a dataset's progress until its job ends. Ctrl-C ends the command; the job continues."""
    _follow(ctx, dataset_id, as_json, server, patience_s)


@dataset_app.command()
def pause(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Pause the generation of a dataset after its current image."""
    with connected(ctx, server, patience_s) as fox:
        job_id = fox.datasets.find(dataset_id).job_id
        job = None if job_id is None else fox.jobs.pause(job_id)
        print_job(job, "running", "It pauses after the current image.", as_json)


@dataset_app.command()
def resume(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Resume a paused dataset, or retry what a failed or cancelled job did not generate."""
    with connected(ctx, server, patience_s) as fox:
        dataset = fox.datasets.find(dataset_id)
        print_job(_resume(fox, dataset), "queued", _hint(dataset.id, server), as_json)


@dataset_app.command()
def repair(
    ctx: typer.Context,
    dataset_id: DatasetId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Check every file of a dataset and generate lost images again. Waits for the job to end."""
    with connected(ctx, server, patience_s, "The job continues in the service: foxhound jobs list.") as fox:
        job = show_until_end(fox, fox.datasets.repair(fox.datasets.find(dataset_id).id).id, as_json)
    if as_json:
        print_json(job)
    if not isinstance(job, RepairJob) or job.result is None:
        raise typer.Exit(EXIT_FAILED)
    if not as_json:
        print_repair(job.result)
    if job.result.num_unrestored:
        raise typer.Exit(EXIT_FAILED)


@dataset_app.command("list")
def list_datasets(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of datasets.")] = 20,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """List the datasets, newest first."""
    with connected(ctx, server, patience_s) as fox:
        found = list(islice(fox.datasets.list(), limit))
    if as_json:
        print_json(found)
        return
    rows = [(one.id, one.name, one.status, _images_of(one), len(one.classes)) for one in found]
    print_table(("ID", "Name", "Status", "Images", "Classes"), rows)


@dataset_app.command()
def delete(
    ctx: typer.Context, dataset_id: DatasetId, server: ServerUrl = DEFAULT_URL, patience_s: Patience = None
) -> None:
    """Delete a dataset and its images."""
    with connected(ctx, server, patience_s) as fox:
        dataset = fox.datasets.find(dataset_id)
        fox.datasets.delete(dataset.id)
    print_result(f"{dataset.name} is deleted.")


def _resume(fox: Foxhound, dataset: DatasetRead) -> JobRead | None:
    """Resume the dataset's job, or retry it if it has ended early; return the job."""
    if dataset.job_id is None:
        return None
    # Whatever its status: a job that is still running may have been asked to pause.
    job = fox.jobs.resume(dataset.job_id)
    if job.status in ENDED and (job.status != "succeeded" or dataset.status == "incomplete"):
        return fox.jobs.retry(dataset.job_id, idempotency_key=f"foxhound-retry-{dataset.job_id}")
    return job


def _print_plan_or_dataset(fox: Foxhound, request: dict[str, Any], as_json: bool) -> None:
    """Print what a request would generate, or the dataset that the same request created before."""
    try:
        print_plan(fox.datasets.plan(**request), as_json)
    except FoxhoundError as refused:
        made = fox.datasets.created_before(refused, **request)
        if made is None:
            raise
        state = f"{made.status}, {_images_of(made)} images"
        _print_dataset(made, f"{made.name} exists already, {state}: {made.id}", as_json)


def _images_of(dataset: DatasetRead) -> str:
    """Return how many images a dataset has, and how many it will have."""
    return f"{dataset.num_images} of {max(dataset.progress.total, dataset.num_images)}"


def _print_dataset(dataset: DatasetRead, line: str, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
    else:
        print_result(line)


def _follow_or_hint(
    ctx: typer.Context, dataset_id: str, follow: bool, as_json: bool, server: str, patience_s: float | None
) -> None:
    """Follow a dataset's job if `follow` is set, else print the command that does."""
    if follow:
        _follow(ctx, dataset_id, as_json, server, patience_s)
    elif not as_json:
        print_result(_hint(dataset_id, server))


def _follow(ctx: typer.Context, dataset_id: str, as_json: bool, server: str, patience_s: float | None) -> None:
    """Display a dataset's job until it ends, then print the dataset.

    Raises:
        typer.Exit: Status 1: the dataset is neither ready nor empty.
    """
    hint = f"The job continues in the service. {_hint(dataset_id, server)}"
    with connected(ctx, server, patience_s, hint) as fox:
        dataset = fox.datasets.find(dataset_id)
        if dataset.job_id is not None:
            show_until_end(fox, dataset.job_id, as_json)
            dataset = fox.datasets.get(dataset.id)
    _print_dataset(dataset, f"{dataset.name} is {dataset.status}: {dataset.num_images} images", as_json)
    if dataset.status not in ("ready", "empty"):
        raise typer.Exit(EXIT_FAILED)


def _hint(dataset_id: str, server: str) -> str:
    return f"Follow it: foxhound dataset follow {dataset_id} --server {server}"
