"""`foxhound jobs`: list, show, wait for, cancel, pause, resume and retry the jobs of a service.

Imports nothing of the server. It runs in the main thread of the command's process. Exit statuses as of `dataset.py`.
"""

from itertools import islice
from typing import Annotated

import typer

from app.cli.connection import EXIT_FAILED, AsJson, Key, Patience, ServerUrl, connected, keep_api_key
from app.cli.console import print_job, print_json, print_result, print_table, progress_text
from app.cli.following import follow_hint, show_until_end
from foxhound_client.client import DEFAULT_URL
from foxhound_client.models import JobStatus

jobs_app = typer.Typer(callback=keep_api_key, help="Jobs of a running service.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


@jobs_app.command("list")
def list_jobs(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option(help="generate, dataset, repair, train or evaluate.")] = None,
    status: Annotated[JobStatus | None, typer.Option(help="Jobs of this status alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of jobs.")] = 20,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """List the jobs, newest first."""
    with connected(ctx, server, patience_s) as fox:
        found = list(islice(fox.jobs.list(kind=kind, status=status), limit))
    if as_json:
        print_json(found)
        return
    rows = [(job.id, job.kind, job.status, progress_text(job), f"{job.created_at:%Y-%m-%d %H:%M}") for job in found]
    print_table(("ID", "Kind", "Status", "Progress", "Created (UTC)"), rows)


@jobs_app.command()
def show(
    ctx: typer.Context,
    job_id: JobId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Show a job."""
    with connected(ctx, server, patience_s) as fox:
        job = fox.jobs.get(job_id)
    print_job(job, "", "", as_json)
    if not as_json and job.error is not None:
        print_result(f"{job.error.title}: {job.error.detail} ({job.error.code})")


@jobs_app.command()
def wait(
    ctx: typer.Context,
    job_id: JobId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Print a job's progress until it ends; the exit status is 1 if it did not succeed. The job survives Ctrl-C."""
    with connected(ctx, server, patience_s, follow_hint(job_id, server)) as fox:
        job = show_until_end(fox, job_id, as_json)
    if as_json:
        print_json(job)
    if job.status != "succeeded":
        raise typer.Exit(EXIT_FAILED)


@jobs_app.command()
def cancel(
    ctx: typer.Context,
    job_id: JobId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Cancel a job. What it has made stays."""
    with connected(ctx, server, patience_s) as fox:
        print_job(fox.jobs.cancel(job_id), "running", "It ends after the current image.", as_json)


@jobs_app.command()
def pause(
    ctx: typer.Context,
    job_id: JobId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Pause a job after its current image."""
    with connected(ctx, server, patience_s) as fox:
        print_job(fox.jobs.pause(job_id), "running", "It pauses after the current image.", as_json)


@jobs_app.command()
def resume(
    ctx: typer.Context,
    job_id: JobId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Resume a paused job."""
    with connected(ctx, server, patience_s) as fox:
        print_job(fox.jobs.resume(job_id), "", "", as_json)


@jobs_app.command()
def retry(
    ctx: typer.Context,
    job_id: JobId,
    as_json: AsJson = False,
    idempotency_key: Key = None,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Submit a failed or cancelled job again, as a new job."""
    with connected(ctx, server, patience_s) as fox:
        key = idempotency_key or f"foxhound-retry-{job_id}"
        print_job(fox.jobs.retry(job_id, idempotency_key=key), "", "", as_json)
