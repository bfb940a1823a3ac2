"""What `foxhound dataset` tells a person, or a script: plans, jobs under way, single lines.

Knows terminals and the words of the API, no requests.
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
def shown(as_json: bool) -> Iterator[Any]:
    """Give what shows a job's state: a line of JSON, a bar on a terminal, else a line for each percent."""
    if as_json:
        yield lambda job: typer.echo(json.dumps(job))
    elif out.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}", markup=False))
        with Progress(*columns, console=out) as progress:
            task = progress.add_task("", total=None, told="")

            def show(job: dict[str, Any]) -> None:
                done, total = job["progress"]["done"], job["progress"]["total"]
                progress.update(task, description=job["status"], completed=done, total=total, told=told(job))

            yield show
    else:
        shown: set[tuple[str, int]] = set()

        def show_line(job: dict[str, Any]) -> None:
            step = (job["status"], 100 * job["progress"]["done"] // max(job["progress"]["total"], 1))
            if step not in shown:
                shown.add(step)
                tell(f"{job['status']}: {told(job)}")

        yield show_line


def told(job: dict[str, Any]) -> str:
    """Say how far a job is, how fast it goes, and how long it may still take at that rate."""
    progress = job["progress"]
    text = f"{progress['done']} of {progress['total']} {progress['unit']}"
    if rate := progress.get("rate_per_minute"):
        minutes = max(progress["total"] - progress["done"], 0) / rate
        left = f"{minutes / 60:.1f} h" if minutes >= 100 else f"{minutes:.0f} min" if minutes >= 2 else "< 2 min"
        text += f", {rate:.1f} a minute, {left} left"
    return text


def tell_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Tell what would be made."""
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
        tell(line)


def tell_job(job: dict[str, Any] | None, expected: str, meaning: str) -> None:
    """Say what state a job is in, and what that means if it is the expected one."""
    if job is None:
        line = "Nothing is made for this dataset: its images are uploaded."
    else:
        line = f"The job {job['id']} is {job['status']}, {told(job)}." + (
            f" {meaning}" if job["status"] == expected else ""
        )
    tell(line)


def tell(line: str) -> None:
    """Tell a line on standard output, without what a terminal would obey."""
    out.print(readable(line), markup=False, highlight=False, soft_wrap=True)


def say(line: object) -> None:
    """Tell something beside the result, on standard error."""
    err.print(str(line), markup=False, highlight=False, soft_wrap=True)
