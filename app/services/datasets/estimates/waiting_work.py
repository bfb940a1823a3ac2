"""What the workers have to draw besides a new job: the images that active jobs still need, and the live workers.

Imports no engine and no storage. Functions run inside the caller's session, on the caller's thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Dataset, Image, Job, Worker, active_jobs
from app.services.datasets.recipes.recipe import NO_OFFSETS, Offsets, max_attempts
from app.services.datasets.records import num_to_make, shot_share
from app.services.generations.records import GenerationSpec

# Most active jobs that are read, oldest first; an estimate behind more of them is too low.
MAX_JOBS_READ = 200
# Datasets with a filter that are read for the share of kept images, newest first.
MAX_DATASETS_READ = 20


@dataclass(frozen=True, slots=True)
class JobWork:
    """The images that an active job still has to draw.

    Attributes:
        caller: Whose job it is.
        num_images: >= 0.
        generation: Their settings, as in `Dataset.generation`.
        is_scored: Whether CLIP scores each of them.
        max_attempts: Images drawn for a slot until a filter keeps one, >= 1; 1 without a filter.
        goes_first: Whether it has a higher priority than a new job of the default priority.
        shot_share: Which part of the images begins with a picture, at the settings' strength, 0 ... 1.
    """

    caller: str
    num_images: int
    generation: Mapping[str, Any]
    is_scored: bool = False
    max_attempts: int = 1
    goes_first: bool = False
    shot_share: float = 0.0

    @classmethod
    def of_dataset(
        cls,
        dataset: Dataset,
        num_images: int,
        caller: str,
        *,
        goes_first: bool = False,
        offsets: Offsets = NO_OFFSETS,
    ) -> "JobWork":
        """Return the work of drawing so many images of the slots of a dataset behind the offsets."""
        recipe = dataset.recipe or {}
        is_scored = recipe.get("filter") is not None
        attempts = max_attempts(dataset) if is_scored else 1
        share = shot_share(dataset, offsets)
        return cls(caller, num_images, dataset.generation, is_scored, attempts, goes_first, share)


def active_work(session: Session) -> list[JobWork]:
    """Return what queued and running jobs that draw images have left; jobs that only train are left out."""
    rows = select(Job, Dataset).outerjoin(Dataset, Dataset.job_id == Job.id)
    waiting = rows.where(active_jobs(), Job.status != "paused").order_by(Job.id).limit(MAX_JOBS_READ)
    found = (_work_of(job, dataset) for job, dataset in session.execute(waiting))
    return [work for work in found if work is not None and work.num_images > 0]


def num_live_workers(session: Session, ttl_s: float) -> int:
    """Count the workers of all nodes that had a heartbeat within the last `ttl_s` seconds."""
    since = utc_now() - timedelta(seconds=ttl_s)
    return session.scalar(select(func.count()).select_from(Worker).where(Worker.beat_at >= since)) or 0


def kept_share(session: Session, pack: str | None) -> float | None:
    """Return the share of drawn images that the filter of the pack's newest filtered dataset kept, 0 .. 1.

    Returns:
        None if there is no such dataset.
    """
    newest = select(Dataset).where(Dataset.pack == pack).order_by(Dataset.id.desc()).limit(MAX_DATASETS_READ)
    for dataset in session.scalars(newest):
        if (dataset.recipe or {}).get("filter") is None:
            continue
        drawn = select(Image.decision, func.count()).where(Image.dataset_id == dataset.id, Image.source == "synthetic")
        counts = {str(decision): number for decision, number in session.execute(drawn.group_by(Image.decision))}
        if total := sum(counts.values()):
            return counts.get("kept", 0) / total
    return None


def _work_of(job: Job, dataset: Dataset | None) -> JobWork | None:
    left, goes_first = job.progress_total - job.progress_done, job.priority > 0
    if job.kind == "generate":
        spec = GenerationSpec.from_json(job.spec)
        image, share = spec.image, float(spec.image.init_image is not None)
        is_scored = bool(spec.labels or spec.best_of)
        return JobWork(job.caller, left, image.to_json(), is_scored, goes_first=goes_first, shot_share=share)
    if dataset is None or job.kind not in ("dataset", "train"):
        return None
    if job.kind == "train":  # its images come first
        left = num_to_make(dataset) - job.progress_done
    return JobWork.of_dataset(dataset, left, job.caller, goes_first=goes_first)
