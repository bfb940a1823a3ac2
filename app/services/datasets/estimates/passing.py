"""How much of other jobs' work passes before a new job has ended: the turns of `app/jobs/turns.py`, as arithmetic.

Pure; imports nothing of the application. Any thread.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that still has work.

    Attributes:
        caller: Whose it is.
        seconds: Of the device, for all that is left, >= 0.
        num_chunks: In which that is done, >= 1.
        goes_first: Whether it has a higher priority than the new job.
    """

    caller: str
    seconds: float
    num_chunks: int
    goes_first: bool = False

    @property
    def chunk_s(self) -> float:
        """The seconds of a chunk."""
        return self.seconds / self.num_chunks


def passing_s(new: WaitingJob, others: Sequence[WaitingJob]) -> float:
    """Return the device's seconds for other jobs before a new one has ended.

    Jobs of a higher priority are done first. Of the others, a chunk runs when the new job comes, half of it on average,
    and the new job's last chunk shares the device with one more. In between each caller has a chunk in turn, whatever
    it costs: so a job of short chunks waits for long ones. The jobs of one caller share its turns, and those that
    wait already have the next one.
    """
    equals = [job for job in others if not job.goes_first]
    own = [job for job in equals if job.caller == new.caller]
    of_callers: dict[str, list[WaitingJob]] = defaultdict(list)
    for job in equals:
        if job.caller != new.caller:
            of_callers[job.caller].append(job)
    passing = sum(job.seconds for job in others if job.goes_first)
    passing += sum(min(job.seconds, (new.num_chunks + 0.5) * job.chunk_s + new.chunk_s) for job in own)
    turns = new.num_chunks * (1 + len(own)) - 0.5
    for jobs in of_callers.values():
        chunk_s = sum(job.chunk_s for job in jobs) / len(jobs)
        passing += min(sum(job.seconds for job in jobs), turns * chunk_s + new.chunk_s)
    return passing
