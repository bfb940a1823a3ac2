"""How long a dataset's job will take on this node, with every assumption in words.

The device's time comes from the engine (`app/engine/scheduling/device_time.py`); this module adds what is around it:
rejected images, encoding and recording, other jobs, interactive requests and workers. Opens no session: runs inside the
caller's, on the caller's thread.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.db.models import Dataset
from app.engine.scheduling.device_time import DeviceEstimate, Work
from app.engine.scheduling.turns import BACKGROUND_EVERY
from app.image_spec import SIDE_MULTIPLE
from app.schemas.datasets import EstimateBasis
from app.services.datasets.estimates.passing import WaitingJob, passing_s
from app.services.datasets.estimates.waiting_work import JobWork, active_work, kept_share, num_live_workers
from app.services.datasets.recipes.recipe import NO_OFFSETS, Offsets
from app.services.datasets.records import mean_row_steps, mean_rows_at_once
from app.services.inference.loaded import CLIP, DIFFUSION
from app.services.inference.service import Inference

# Seconds from the request to the first step, and from the last image to the job's end: a worker looks for jobs and for
# chunks every 0.5 s. Assumed; `bench.estimate` compares whole jobs with their estimates.
START_S = 1.0
# Processor seconds of an image beside the device's: encoding, the way to the worker, writing and recording it, by pixel
# and by image. Assumed, from the time of encoding a PNG on two cores.
IMAGE_S = 0.012
PIXEL_S = 0.5e-6
# Share of the images that a filter keeps, until a dataset with a filter was made.
ASSUMED_KEPT = 0.8
# Row-steps that a CLIP score costs, until one was taken.
SCORE_ROW_STEPS = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated time of a job.

    Attributes:
        row_steps: Rows x steps of all images that are kept, >= 0; the filter's rejections do not count.
        seconds: From the request to the job's end, >= 0; None if this node cannot know.
        basis: What the cost of a step rests on.
        text: The basis in words, or why there is no estimate; a sentence.
        assumptions: What is assumed besides; sentences.
    """

    row_steps: int
    seconds: float | None
    basis: EstimateBasis
    text: str
    assumptions: list[str]


class JobEstimator:
    """Estimates the time of jobs that draw images."""

    def __init__(self, inference: Inference, *, chunk_size: int, chunks_at_once: int, worker_ttl_s: float) -> None:
        """Use this node's engine.

        Args:
            inference: The models of this node.
            chunk_size: Images of a chunk.
            chunks_at_once: Chunks that a worker runs at a time.
            worker_ttl_s: Seconds without a heartbeat after which a worker counts as dead.
        """
        self._inference = inference
        self._chunk_size = chunk_size
        self._at_once = chunk_size * chunks_at_once
        self._worker_ttl_s = worker_ttl_s

    def estimate(
        self,
        session: Session,
        dataset: Dataset,
        num_images: int,
        caller: Caller,
        offsets: Offsets = NO_OFFSETS,
    ) -> Estimate:
        """Estimate the time until a new job has made so many images of a dataset, if it were submitted now.

        Args:
            session: Where the work of other jobs is read.
            dataset: The row as it would be.
            num_images: Images to make, >= 0.
            caller: Whose job it would be.
            offsets: The images are those of slots behind these.
        """
        job = JobWork.of_dataset(dataset, num_images, caller.id, offsets=offsets)
        row_steps = round(num_images * mean_row_steps(job.generation, job.shot_share))
        kept = kept_share(session, dataset.pack)
        device = self._device(job, kept)
        if device.seconds is None or device.basis is None:
            reason = "This node does not know the speed of its diffusion model: no step was measured yet."
            return Estimate(row_steps, None, "unknown", reason, [])
        num_workers = num_live_workers(session, self._worker_ttl_s)
        others = [self._waiting(other, kept) for other in active_work(session)]
        own = self._waiting(job, kept)
        ahead_s = passing_s(own, others)
        free = max(1 - device.interactive_share, 1 / BACKGROUND_EVERY)
        seconds = (
            START_S + device.interactive_s + (own.seconds + ahead_s) / free / max(1, num_workers) if num_images else 0.0
        )
        assumptions = [
            *([_first_use_text(device.first_use_s)] if device.first_use_s else []),
            *([_kept_text(kept)] if job.is_scored else []),
            f"To encode, write and record an image takes {1000 * _other_s(dataset.generation):.0f} ms more.",
            _others_text(others, ahead_s),
            f"Interactive requests go on taking {device.interactive_share:.0%} of the device's time.",
            _workers_text(num_workers),
        ]
        text = _basis_text(device, dataset.generation)
        return Estimate(row_steps, round(seconds, 1), device.basis, text, assumptions)

    def _waiting(self, job: JobWork, kept: float | None) -> WaitingJob:
        """Return a job with its seconds alone on one idle node; 0 if nothing is known."""
        attempts = _attempts(job, kept)
        seconds = (self._device(job, kept).seconds or 0.0) + job.num_images * attempts * _other_s(job.generation)
        num_chunks = max(1, math.ceil(job.num_images / self._chunk_size))
        return WaitingJob(job.caller, seconds, num_chunks, goes_first=job.goes_first)

    def _device(self, job: JobWork, kept: float | None) -> DeviceEstimate:
        """Return the device's time of a job, scoring included."""
        num = job.num_images * _attempts(job, kept)
        at_once = max(1, min(job.num_images, self._at_once))
        drawn = _drawing(job, num, at_once)
        found = self._inference.estimate(DIFFUSION, [drawn])
        if not job.is_scored or found.seconds is None:
            return found
        scored = self._inference.estimate(CLIP, [Work((), row_steps=num, together=1)]).seconds
        if scored is None:
            as_steps = Work(drawn.shape, row_steps=num * SCORE_ROW_STEPS, together=1, network=drawn.network)
            scored = self._inference.estimate(DIFFUSION, [as_steps]).seconds or 0.0
        return replace(found, seconds=found.seconds + scored)


def _drawing(job: JobWork, num_images: float, at_once: int) -> Work:
    generation = job.generation
    shape = (int(generation["height"]) // SIDE_MULTIPLE, int(generation["width"]) // SIDE_MULTIPLE)
    together = max(1, round(mean_rows_at_once(generation, job.shot_share) * at_once))
    row_steps = num_images * mean_row_steps(generation, job.shot_share)
    return Work(shape, row_steps, together, finishes=num_images, network=generation.get("model") or "")


def _other_s(generation: Mapping[str, Any]) -> float:
    return IMAGE_S + PIXEL_S * int(generation["width"]) * int(generation["height"])


def _attempts(job: JobWork, kept: float | None) -> float:
    """Return the images that are drawn for each slot: until one is kept, or no attempt is left."""
    if job.max_attempts == 1:
        return 1.0
    share = ASSUMED_KEPT if kept is None else kept
    return (1 - (1 - share) ** job.max_attempts) / share if share > 0 else float(job.max_attempts)


def _basis_text(device: DeviceEstimate, generation: Mapping[str, Any]) -> str:
    size = f"{generation['width']}x{generation['height']} pixels"
    return {
        "measured": f"A step costs what the latest steps at {size} took on this node.",
        "scaled": f"No step was at {size} yet. A step costs what those at other sizes took on this node, by pixels.",
        "calibrated": "A step costs what the node measured at its start: no image has been drawn since.",
    }[device.basis or "calibrated"]


def _first_use_text(seconds: float) -> str:
    return f"The first step at this size takes {seconds:.1f} s more, to test which images can share a step."


def _kept_text(kept: float | None) -> str:
    if kept is None:
        return f"The filter keeps {ASSUMED_KEPT:.0%} of the images: no dataset with a filter has been made yet."
    return f"The filter keeps {kept:.0%} of the images, as in the newest dataset with a filter."


def _others_text(others: Sequence[WaitingJob], ahead_s: float) -> str:
    if not others:
        return "No other job draws images, and none begins before this one has ended."
    jobs = "1 other job draws images" if len(others) == 1 else f"{len(others)} other jobs draw images"
    return f"{jobs}, and {ahead_s:.0f} s of that pass before this one has ended; no further job begins before."


def _workers_text(num_workers: int) -> str:
    if num_workers == 0:
        return "No worker is live now: the time counts from the moment that one starts."
    if num_workers == 1:
        return "One worker runs the job."
    return f"{num_workers} workers share the job, each on a node as fast as this one."
