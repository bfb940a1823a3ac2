"""Turns of chunks: which chunk of which job runs next, so that callers share the workers evenly.

Chunks of one priority run in the order of their turns. A caller gets one chunk a turn, however many jobs it has.
Imports neither jobs nor the database; pure functions, any thread.
"""

from collections.abc import Collection


def next_turn(last: int | None, *, running: Collection[int], queued: Collection[int], num_jobs: int, ahead: int) -> int:
    """Return the turn of a job's next chunk.

    Args:
        last: The turn of the job's latest chunk; None: it has had none.
        running: The turns of all chunks that run.
        queued: The turns of all chunks that wait.
        num_jobs: Running jobs of the job's caller, itself included, >= 1: they share the caller's turns.
        ahead: Chunks of a job that may wait at a time, >= 1. A job is never further ahead of those that run now, so
            that it is not put behind others after the turns began again at 0, when no chunk was left.

    Source:
        Goyal, Vin and Cheng, "Start-time Fair Queuing", 1996; the virtual time is the latest turn that runs.
    """
    now = max(running, default=min(queued, default=0))
    if last is None:
        return now + num_jobs - 1
    return min(max(now, last + num_jobs), now + ahead * num_jobs)
