"""How long the threads of this process have waited for a core of the host.

Imports nothing of the application. Any thread may call it.
"""

import os

_TASKS = "/proc/self/task"


def seconds_without_core() -> float:
    """Return the seconds so far that this process's live threads were ready to run while others had the cores.

    Returns:
        >= 0, of all threads together; 0 where the system does not say it, which is everywhere but on Linux.

    Source:
        `Documentation/scheduler/sched-stats.rst` of Linux: the second number of `schedstat`, in nanoseconds.
    """
    try:
        threads = os.listdir(_TASKS)
    except OSError:
        return 0.0
    return sum(map(_delay_ns, threads)) / 1e9


def _delay_ns(thread: str) -> int:
    try:
        with open(f"{_TASKS}/{thread}/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):  # it has ended, or the kernel was built without the figure
        return 0
