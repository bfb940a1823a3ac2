"""Python client of a Foxhound service, blocking and asynchronous: `Foxhound` and `AsyncFoxhound`.

Needs httpx and pydantic alone; imports nothing of the service. `docs/client.md` shows each workflow.
"""

from foxhound_client.client import AsyncFoxhound, Foxhound
from foxhound_client.errors import (
    AccessRefused,
    DownloadFailed,
    FoxhoundError,
    JobFailed,
    NotFound,
    Problem,
    TryLater,
    Unreachable,
)

__all__ = [
    "AccessRefused",
    "AsyncFoxhound",
    "DownloadFailed",
    "Foxhound",
    "FoxhoundError",
    "JobFailed",
    "NotFound",
    "Problem",
    "TryLater",
    "Unreachable",
]
