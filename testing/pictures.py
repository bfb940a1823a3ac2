"""A fake kind of job: "pictures", which are small text files with a row each.

The spec says what happens at a picture, so that the same handler works in this process and in a worker process of its
own. Every picture made adds a line to `made.log`, so that repetitions can be counted.
"""

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.caller import LOCAL
from app.db.base import new_id
from app.db.models import Dataset, Image, Job
from app.db.session import Database
from app.errors import StorageFull
from app.jobs.handler import JobContext
from app.jobs.queue import JobQueue
from app.jobs.record import ENDED, advance
from app.jobs.signals import Json
from testing.waiting import wait_for, wait_until


class Pictures:
    """Writes `num` pictures in chunks of `chunk_size`; with `in_parent`, in one step of the parent."""

    kind = "pictures"
    queue = "jobs"

    def run(self, job: JobContext) -> dict[str, Json] | None:
        positions = list(range(job.step("plan", lambda: job.spec["num"])))
        if job.spec.get("in_parent"):
            self._make(job, positions)
            return {"made": positions}
        size = job.spec["chunk_size"]
        made = job.chunks([positions[start : start + size] for start in range(0, len(positions), size)])
        return {"made": [position for chunk in made for position in chunk]}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        return self._make(job, item)

    def cleanup(self, job: JobContext) -> None:
        """Do nothing: tests count the files."""

    def on_end(self, session: Session, job: Job) -> None:
        session.get_one(Dataset, job.spec["dataset_id"]).status = {"succeeded": "ready"}.get(job.status, job.status)

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        session.get_one(Dataset, failed.spec["dataset_id"]).status = "queued"

    def _make(self, job: JobContext, positions: Sequence[int]) -> list[int]:
        def paint() -> list[int]:
            for position in positions:
                job.check_cancelled()
                paint_one(job.spec, position)
            return list(positions)

        def insert(session: Session) -> None:
            session.add_all(picture_row(job.spec, position) for position in positions)
            advance(session, job.id, len(positions))
            freeze_once(job.spec, positions)

        painted: list[int] = job.step("paint", paint)
        job.transaction("insert", insert)
        return painted


def paint_one(spec: dict[str, Any], position: int) -> None:
    """Write one picture, unless the handler stops, crashes or fails at it according to the spec."""
    folder = Path(spec["folder"])
    if position == spec.get("stop_at"):
        (folder / "reached").touch()
        wait_until((folder / "go").exists)
    if position == spec.get("die_at"):
        with (folder / "deaths.log").open("a") as log:
            log.write(f"{position}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if position == spec.get("refuse_at"):
        raise StorageFull
    if position == spec.get("break_at"):
        raise RuntimeError("a secret of the implementation")
    # A worker that was frozen may write the same picture as its successor, as it may in the data folder.
    unfinished = folder / f"{position}-{threading.get_ident()}.tmp"
    unfinished.write_text(f"picture {position}")
    unfinished.rename(folder / f"{position}.txt")
    with (folder / "made.log").open("a") as log:
        log.write(f"{position}\n")


def freeze_once(spec: dict[str, Any], positions: Sequence[int]) -> None:
    """Suspend this process in a transaction that locks the job's row; only in the first execution of the chunk."""
    frozen = Path(spec["folder"]) / "frozen"
    if spec.get("freeze_at") in positions and not frozen.exists():
        frozen.touch()
        os.kill(os.getpid(), signal.SIGSTOP)


def picture_row(spec: dict[str, Any], position: int) -> Image:
    content = f"picture {position}".encode()
    return Image(
        id=new_id(), path=f"{spec['folder']}/{position}.txt", format="txt", width=1, height=1, num_bytes=len(content),
        sha256=sha256(content).hexdigest(), lineage={}, dataset_id=spec["dataset_id"], split="train", class_index=0,
        position=position,
    )  # fmt: skip


def submit_pictures(queue: JobQueue, db: Database, folder: Path, *, caller: str = "local", **spec: Any) -> str:
    """Add a dataset and its job, as a service would, and return the job's id."""
    folder.mkdir(parents=True, exist_ok=True)
    with db.transaction() as session:
        dataset = Dataset(
            id=new_id(), name=folder.name, status="queued", seed=0, classes=[], train_per_class=1, test_per_class=0,
            generation={},
        )  # fmt: skip
        session.add(dataset)
        spec = {"num": 12, "chunk_size": 3, **spec, "folder": str(folder), "dataset_id": dataset.id}
        job = queue.submit(
            session, kind=Pictures.kind, spec=spec, total=spec["num"], unit="images", caller=replace(LOCAL, id=caller)
        )
        return job.id


def job_row(db: Database, job_id: str) -> Job:
    with db.snapshot() as session:
        return session.get_one(Job, job_id)


def wait_for_end(db: Database, job_id: str) -> Job:
    """Wait for the job's last status, as long as its row keeps changing."""

    def state() -> tuple[str, int]:
        job = job_row(db, job_id)
        return job.status, job.version

    wait_for(state, lambda state: state[0] in ENDED)
    return job_row(db, job_id)


def dataset_status(db: Database, job_id: str) -> str:
    with db.snapshot() as session:
        return session.get_one(Dataset, session.get_one(Job, job_id).spec["dataset_id"]).status


def recorded_positions(db: Database) -> list[int]:
    with db.snapshot() as session:
        return sorted(session.scalars(select(Image.position)))


def made(folder: Path) -> list[int]:
    """Return the pictures in the order of writing, repetitions included."""
    log = folder / "made.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []
