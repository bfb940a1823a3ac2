"""The workflows that have a thread in this worker; one that the database lists beside them is abandoned.

Imports neither jobs nor the database. Entered on the threads of the workflows, read on the reaper's thread.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Executions:
    """The workflows that run in this process; one that was requeued and claimed again may run twice for a moment."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._nums: Counter[str] = Counter()

    @contextmanager
    def held(self, workflow_id: str) -> Iterator[None]:
        """Count a workflow as running for the length of the block."""
        with self._lock:
            self._nums[workflow_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._nums[workflow_id] -= 1
                self._nums += Counter()  # drops what is at zero

    def __contains__(self, workflow_id: str) -> bool:
        """Return whether a workflow has a thread here."""
        with self._lock:
            return self._nums[workflow_id] > 0
