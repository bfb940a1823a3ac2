"""Prints results and progress for a person or a script.

Results go to standard output, notes and errors to standard error. With `--json`, standard output gets one JSON document
and progress goes to standard error. The module sends no requests. It runs in the main thread of the command's process.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from foxhound_client.errors import readable
from foxhound_client.models import DatasetPlan, JobRead, JobSummary, RepairResult

out = Console()
err = Console(stderr=True)

# Takes a label such as the job's status, how much is done of how much, and a text.
Show = Callable[[str, int, int, str], None]


@contextmanager
def progress_display(as_json: bool) -> Iterator[Show]:
    """Return a function that displays progress: a bar on a terminal, without one a line for each percent."""
    console = err if as_json else out
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}", markup=False))
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=None, text="")

            def show_bar(label: str, done: int, total: int, text: str) -> None:
                progress.update(task, description=label, completed=done, total=total, text=text)

            yield show_bar
    else:
        printed: set[tuple[str, int]] = set()

        def show_line(label: str, done: int, total: int, text: str) -> None:
            step = (label, 100 * done // max(total, 1))
            if step not in printed:
                printed.add(step)
                print_line(console, f"{label}: {text}")

        yield show_line


@contextmanager
def download_display() -> Iterator[Callable[[int, int, str], None]]:
    """Return a function that displays on standard error how many bytes are there."""
    with progress_display(as_json=True) as show:
        yield lambda done, total, _: show("downloading", done, total, f"{done / 1e6:.1f} of {total / 1e6:.1f} MB")


def progress_text(job: JobSummary | JobRead) -> str:
    """Return a job's progress, its rate per minute and the time left at that rate, as text."""
    progress = job.progress
    text = f"{progress.done} of {progress.total} {progress.unit}"
    if rate := progress.rate_per_minute:
        minutes = max(progress.total - progress.done, 0) / rate
        left = f"{minutes / 60:.1f} h" if minutes >= 100 else f"{minutes:.0f} min" if minutes >= 2 else "< 2 min"
        text += f", {rate:.1f} a minute, {left} left"
    return text


def print_json(document: Any) -> None:
    """Print a JSON document: an answer of the service as it was received, or plain values."""
    typer.echo(json.dumps(plain(document)))


def plain(document: Any) -> Any:
    """Return an answer of the service, or several, as plain values; members are as they were received."""
    if isinstance(document, BaseModel):
        return document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(document, list):
        return [plain(one) for one in document]
    return document


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows: a table on a terminal, else a line for each row, its cells separated by tabs."""
    cells = [[readable(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        for row in (columns, *cells):
            print_cells(*row)
        return
    table = Table(*columns)
    table.columns[0].no_wrap = True
    for row in cells:
        table.add_row(*row)
    out.print(table)


def print_cells(*cells: object) -> None:
    """Print a line of cells, separated by tabs; control characters inside a cell are replaced."""
    typer.echo("\t".join(readable(cell) for cell in cells))


def print_plan(plan: DatasetPlan, as_json: bool) -> None:
    """Print the answer to a dry run: number of images, time needed, and sample prompts."""
    if as_json:
        print_json(plan)
        return
    seconds = plan.estimated_seconds
    time_needed = (
        "" if seconds is None else f", about {seconds / 3600:.1f} h" if seconds > 5400 else f", {seconds:.0f} s"
    )
    lines = [f"{plan.name}: {plan.num_images} images{time_needed}", str(plan.estimate or "")]
    lines.extend(f"  {image.split}/{image.class_name} {image.position}: {image.prompt}" for image in plan.samples)
    for line in filter(None, lines):
        print_result(line)


def print_job(job: JobRead | None, expected: str, meaning: str, as_json: bool = False) -> None:
    """Print a job's state, followed by `meaning` if the state is the expected one; None: the dataset has no job."""
    if as_json:
        print_json(job)
    elif job is None:
        print_result("This dataset has no job: its images are uploaded.")
    else:
        line = f"The job {job.id} is {job.status}, {progress_text(job)}."
        print_result(line + (f" {meaning}" if job.status == expected else ""))


def print_repair(result: RepairResult) -> None:
    """Print the result of a repair: the counts, then each image that is still lost."""
    counts = f"{result.num_restored} restored, {result.num_redrawn} replaced by new images"
    print_result(f"{result.num_checked} files: {counts}, {result.num_unrestored} still lost")
    for image in result.unrestored:
        print_result(f"{image.path} ({image.code}): if it was uploaded, upload the same file again")


def print_result(line: str) -> None:
    """Print a line to standard output; control characters, which a terminal would interpret, are replaced."""
    print_line(out, readable(line))


def print_note(line: object) -> None:
    """Print a note or an error to standard error."""
    print_line(err, str(line))


def print_line(console: Console, line: str) -> None:
    """Print a line as it is, whatever the width of the terminal."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
