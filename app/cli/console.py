"""Prints what `foxhound dataset` reports to a person or a script: plans, jobs in progress, single lines.

Results go to standard output, notes and errors to standard error. The module formats JSON of the API and sends no
requests. It runs in the main thread of the command's process.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from app.client.service import readable

out = Console()
err = Console(stderr=True)


@contextmanager
def job_display(as_json: bool) -> Iterator[Any]:
    """Return a function that displays a job's state: as a line of JSON, as a progress bar, or as plain lines.

    The bar needs a terminal; without one, a line is printed for each percent.
    """
    if as_json:
        yield lambda job: typer.echo(json.dumps(job))
    elif out.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}", markup=False))
        with Progress(*columns, console=out) as progress:
            task = progress.add_task("", total=None, text="")

            def show(job: dict[str, Any]) -> None:
                done, total = job["progress"]["done"], job["progress"]["total"]
                progress.update(task, description=job["status"], completed=done, total=total, text=progress_text(job))

            yield show
    else:
        printed: set[tuple[str, int]] = set()

        def show_line(job: dict[str, Any]) -> None:
            step = (job["status"], 100 * job["progress"]["done"] // max(job["progress"]["total"], 1))
            if step not in printed:
                printed.add(step)
                print_result(f"{job['status']}: {progress_text(job)}")

        yield show_line


def progress_text(job: dict[str, Any]) -> str:
    """Return a job's progress, its rate per minute and the time left at that rate, as text."""
    progress = job["progress"]
    text = f"{progress['done']} of {progress['total']} {progress['unit']}"
    if rate := progress.get("rate_per_minute"):
        minutes = max(progress["total"] - progress["done"], 0) / rate
        left = f"{minutes / 60:.1f} h" if minutes >= 100 else f"{minutes:.0f} min" if minutes >= 2 else "< 2 min"
        text += f", {rate:.1f} a minute, {left} left"
    return text


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Print the answer to a dry run: number of images, time needed, and sample prompts."""
    if as_json:
        typer.echo(json.dumps(plan))
        return
    seconds = plan.get("estimated_seconds")
    time_needed = (
        "" if seconds is None else f", about {seconds / 3600:.1f} h" if seconds > 5400 else f", {seconds:.0f} s"
    )
    lines = [f"{plan.get('name')}: {plan.get('num_images')} images{time_needed}", str(plan.get("estimate", ""))]
    lines.extend(
        f"  {image['split']}/{image['class_name']} {image['position']}: {image['prompt']}"
        for image in plan.get("samples", [])
    )
    for line in filter(None, lines):
        print_result(line)


def print_job(job: dict[str, Any] | None, expected: str, meaning: str) -> None:
    """Print a job's state, followed by `meaning` if the state is the expected one; None: the dataset has no job."""
    if job is None:
        line = "This dataset has no job: its images are uploaded."
    else:
        line = f"The job {job['id']} is {job['status']}, {progress_text(job)}." + (
            f" {meaning}" if job["status"] == expected else ""
        )
    print_result(line)


def print_repair(result: dict[str, Any]) -> None:
    """Print the result of a repair: the counts, then each image that is still lost."""
    counts = f"{result['num_restored']} restored, {result['num_redrawn']} replaced by new images"
    print_result(f"{result['num_checked']} files: {counts}, {result['num_unrestored']} still lost")
    for image in result["unrestored"]:
        print_result(f"{image['path']} ({image['code']}): if it was uploaded, upload the same file again")


def print_result(line: str) -> None:
    """Print a line to standard output; control characters, which a terminal would interpret, are replaced."""
    out.print(readable(line), markup=False, highlight=False, soft_wrap=True)


def print_note(line: object) -> None:
    """Print a note or an error to standard error."""
    err.print(str(line), markup=False, highlight=False, soft_wrap=True)
