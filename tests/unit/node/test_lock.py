import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.node.lock import DataDirInUse, lock_data_dir
from testing.small_disk import small_disk


def test_a_second_node_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    with (
        lock_data_dir(tmp_path),
        pytest.raises(DataDirInUse, match=rf"process {os.getpid()}\)"),
        lock_data_dir(tmp_path),
    ):
        pass


def test_the_folder_is_free_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_data_dir(tmp_path / "new"):
            pass


def test_a_killed_nodes_lock_is_gone(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from app.node.lock import lock_data_dir\n"
    code += "with lock_data_dir(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3], check=False)
    assert killed.returncode == -9
    with lock_data_dir(tmp_path):
        pass


def test_a_full_disk_keeps_no_node_from_starting() -> None:
    with small_disk(1) as disk:
        disk.fill()
        with lock_data_dir(disk.root), pytest.raises(DataDirInUse), lock_data_dir(disk.root):
            pass
