"""The database and data folder that several nodes share, as tests read them: one dataset job, its rows and files."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from app.db.models import Image, Job
from app.db.session import Database
from testing.pictures import job_row, wait_for_end

NUM_IMAGES = 24


@dataclass(frozen=True)
class Shared:
    """A database, a data folder, and an application in this process that accepts requests.

    Attributes:
        http: A client of that application.
        db: The database.
        data_dir: The storage.
    """

    http: httpx.Client
    db: Database
    data_dir: Path

    def submit(self, **changes: Any) -> dict[str, Any]:
        """Create a dataset of `NUM_IMAGES` images and return it."""
        answer = self.http.post("/datasets", json={**BODY, **changes})
        assert answer.status_code == 202, answer.text
        read: dict[str, Any] = answer.json()
        return read

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        """Return the current state of a dataset."""
        read: dict[str, Any] = self.http.get(f"/datasets/{dataset_id}").json()
        return read

    def end(self, read: dict[str, Any]) -> Job:
        """Wait for the end of a dataset's job."""
        return wait_for_end(self.db, read["job_id"])

    def job(self, read: dict[str, Any]) -> Job:
        """Return the current row of a dataset's job."""
        return job_row(self.db, read["job_id"])

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of every file of every dataset, by path."""
        found = {path for kind in ("datasets", "rejected") for path in (self.data_dir / kind).rglob("*")}
        return {
            str(path.relative_to(self.data_dir)): sha256(path.read_bytes()).hexdigest()
            for path in found
            if path.is_file()
        }

    def written(self) -> dict[str, tuple[int, int]]:
        """Return inode and time of modification, in ns, of every file, by path."""
        return {path: _trace(self.data_dir / path) for path in self.files()}

    def rows(self) -> dict[str, str]:
        """Return the SHA-256 of every recorded image, by path."""
        with self.db.snapshot() as session:
            return {image.path: image.sha256 for image in session.scalars(select(Image))}


BODY = {
    "name": "shared",
    "seed": 7,
    "classes": [{"name": "fox", "prompts": ["a fox"]}, {"name": "dog", "prompts": ["a dog"]}],
    "generation": {"num_inference_steps": 2},
    "train_per_class": 8,
    "test_per_class": 4,
}


def _trace(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
