"""The socket of a node's engine: one process has it, and nobody removes another's."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.node.socket import EngineSocket, RunDirInUse, check_run_dir

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engine.sock"


def test_a_second_process_is_refused_in_words_and_the_first_keeps_its_socket(path: Path) -> None:
    first = EngineSocket(path)
    with first.locked(), first.bound():
        with pytest.raises(RunDirInUse, match=rf"process {os.getpid()}\).*FOXHOUND_RUN_DIR"):
            check_run_dir(path)
        assert first.is_own()
        code = "import sys; from pathlib import Path; from app.node.socket import check_run_dir\n"
        code += "check_run_dir(Path(sys.argv[1]))"
        other = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, check=False)
        assert other.returncode == 1
        assert b"RunDirInUse" in other.stderr
        assert first.is_own()
    assert not path.exists()
    check_run_dir(path)


def test_what_a_killed_process_left_is_no_obstacle(path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from app.node.socket import EngineSocket\n"
    code += "s = EngineSocket(Path(sys.argv[1]))\nwith s.locked(), s.bound() as o: o.listen(); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    successor = EngineSocket(path)
    with successor.locked(), successor.bound():
        assert successor.is_own()


def test_a_socket_of_a_release_without_the_lock_is_left_to_it(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as older:
        older.bind(str(path))
        older.listen()
        with pytest.raises(RunDirInUse, match="older release"):
            check_run_dir(path)
        assert path.exists()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_socket_that_was_taken_away_is_noticed_and_its_successor_left(path: Path, is_replaced: bool) -> None:
    mine, other = EngineSocket(path), socket.socket(socket.AF_UNIX)
    with mine.locked(), mine.bound():
        assert mine.is_own()
        path.unlink()
        if is_replaced:
            other.bind(str(path))
        assert not mine.is_own()
    assert path.exists() == is_replaced
    other.close()


def test_only_this_user_may_open_it(path: Path) -> None:
    mine = EngineSocket(path)
    with mine.locked(), mine.bound():
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
