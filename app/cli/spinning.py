"""How long the threads of OpenMP wait for each other in loops before they sleep.

Imports nothing of the application. Has to run before torch or scikit-learn are imported: their OpenMP reads the
environment once.
"""

from collections.abc import MutableMapping

# About a tenth of a millisecond: longer than the pauses between two layers, shorter than a time slice of the scheduler,
# for which the default of 300,000 waits at each barrier once another process has taken a core (docs/decisions/0084).
SPIN_COUNT = "10000"


def bound_spinning(environment: MutableMapping[str, str]) -> None:
    """Let threads sleep after `SPIN_COUNT` rounds, unless the environment says how they wait.

    Without effect on results, and on other implementations than GNU's, which torch's packages for Linux have.

    Source:
        `GOMP_SPINCOUNT` and `OMP_WAIT_POLICY` in the manual of libgomp.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
