"""Tests of `app.cli.spinning`."""

import subprocess
import sys

from app.cli.spinning import SPIN_COUNT, bound_spinning


def test_spinning_is_bounded_unless_the_operator_says_how_threads_wait() -> None:
    environment: dict[str, str] = {}
    bound_spinning(environment)
    assert environment == {"GOMP_SPINCOUNT": SPIN_COUNT}
    for said in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        environment = dict(said)
        bound_spinning(environment)
        assert environment == said


def test_the_command_sets_it_before_a_library_reads_it() -> None:
    code = "import sys, app.cli.main; sys.exit(bool({'torch', 'sklearn'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)
