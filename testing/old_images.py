"""Generations of any age, recorded as the service records them, with small files instead of images."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import func, select

from app.db.base import new_id, utc_now
from app.db.models import Generation, Image
from app.db.session import Database
from app.image_spec import ImageSpec
from app.services.generations.records import GenerationSpec
from app.storage.layout import DataFolder

DAY = timedelta(days=1)


def add_generations(
    db: Database,
    folder: DataFolder,
    ages: Iterable[timedelta],
    *,
    num_images: int = 1,
    num_bytes: int = 1_000,
    job_id: str | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Record generations of these ages, whose files have `num_bytes` bytes each, in one transaction; return their ids.

    The files are written without waiting for the disk.
    """
    now = now or utc_now()
    with db.transaction() as session:
        made = [_generation(folder, now - age, num_images, num_bytes, job_id) for age in ages]
        session.add_all(generation for generation, _ in made)
        session.flush()
        session.add_all(image for _, images in made for image in images)
    return [generation.id for generation, _ in made]


def add_generation(db: Database, folder: DataFolder, *, age: timedelta = timedelta(0), **options: Any) -> str:
    """Record one generation, as `add_generations` does."""
    (generation_id,) = add_generations(db, folder, [age], **options)
    return generation_id


def _generation(
    folder: DataFolder, created_at: datetime, num_images: int, num_bytes: int, job_id: str | None
) -> tuple[Generation, list[Image]]:
    generation_id = new_id()
    images = []
    for position in range(num_images):
        image_id = new_id()
        path, data = folder.image_path(image_id, "png"), image_id.encode().ljust(num_bytes, b".")
        (folder.root / path).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / path).write_bytes(data)
        images.append(
            Image(
                id=image_id, created_at=created_at, path=path, format="png", width=1, height=1, num_bytes=num_bytes,
                sha256=sha256(data).hexdigest(), lineage={}, generation_id=generation_id, position=position, seed=1,
            )
        )  # fmt: skip
    parameters = GenerationSpec(ImageSpec("a fox"), num_images, None).to_json()
    timings = {"queued_ms": 0.0, "denoising_ms": 0.0, "decoding_ms": 0.0}
    generation = Generation(
        id=generation_id, created_at=created_at, job_id=job_id, pack="demo", pack_revision="1", parameters=parameters,
        warnings=[], timings=timings,
    )  # fmt: skip
    return generation, images


def generations(db: Database) -> set[str]:
    """Return the ids of all generations."""
    with db.snapshot() as session:
        return set(session.scalars(select(Generation.id)))


def image_ids(db: Database, generation_id: str) -> list[str]:
    """Return the ids of a generation's images."""
    with db.snapshot() as session:
        return list(session.scalars(select(Image.id).where(Image.generation_id == generation_id)))


def check_files(db: Database, folder: DataFolder) -> None:
    """Expect that each record of an image has its file, and each file its record, with nothing in `.lost+found`."""
    with db.snapshot() as session:
        recorded = set(session.scalars(select(Image.path)))
    found = [
        path for kind in ("images", "datasets", "rejected", ".lost+found") for path in (folder.root / kind).rglob("*")
    ]
    assert {str(path.relative_to(folder.root)) for path in found if path.is_file()} == recorded


def total_bytes(db: Database) -> int:
    """Return the total size of all images by their records."""
    with db.snapshot() as session:
        return int(session.scalar(select(func.sum(Image.num_bytes))) or 0)
