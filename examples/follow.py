"""Follows jobs by their events until they have ended, all at once: the asynchronous client.

    python examples/follow.py [JOB_ID ...]

Default: all jobs that have not ended; nothing to do if there are none. The exit status is 1 if a job has not succeeded.
Settings: FOXHOUND_URL, FOXHOUND_API_KEY.
"""

import asyncio
import sys

from foxhound_client import AsyncFoxhound


async def follow(fox: AsyncFoxhound, job_id: str) -> bool:
    """Print each state of a job; return whether it has succeeded."""
    status = ""
    async for job in fox.jobs.events(job_id):
        print(f"{job_id} {job.status}: {job.progress.done} of {job.progress.total} {job.progress.unit}")
        status = job.status
    return status == "succeeded"


async def main(job_ids: list[str]) -> int:
    """Follow these jobs, or all that have not ended; return the exit status."""
    async with AsyncFoxhound(retry_for_s=600) as fox:
        for status in ("running", "queued", "paused"):
            if not sys.argv[1:]:
                job_ids += [job.id async for job in fox.jobs.list(status=status)]
        if not job_ids:
            print("0 of 0 jobs run or wait")
        return 0 if all(await asyncio.gather(*(follow(fox, job_id) for job_id in job_ids))) else 1


raise SystemExit(asyncio.run(main(sys.argv[1:])))
