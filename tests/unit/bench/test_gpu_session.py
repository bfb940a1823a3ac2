"""The script that measures everything on a GPU: what it does with the time that it has, tried without a GPU."""

from pathlib import Path

import pytest
import torch

from bench.gpu.session import GPU_PARTS, Part, main, run


def says(name: str, code: str, least_s: float = 0.0) -> Part:
    """A part that is a module of one line in the folder `modules`."""
    Path(f"{name}_part.py").write_text(code)
    return Part(name, (f"{name}_part",), least_s)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_part_that_fails_or_is_cut_off_keeps_its_output_and_the_next_ones_run() -> None:
    parts = [
        says("good", "print('figures')"),
        says("bad", "print('half'); raise SystemExit(3)"),
        says("endless", "print('begun', flush=True)\nwhile True: pass"),
        says("late", "print('never')", least_s=60),
    ]
    outcomes = run(parts, 5.0, Path("out"))
    assert outcomes == {"good": "done", "bad": "failed", "endless": "cut off", "late": "left out"}
    assert Path("out/good.txt").read_text() == "figures\n"
    assert Path("out/endless.txt").read_text() == "begun\n"
    assert not Path("out/late.txt").exists()


def test_all_parts_fit_into_the_time_that_is_lent() -> None:
    assert sum(part.least_s for part in GPU_PARTS) < 60 * 9.5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_to_try_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--quick" in capsys.readouterr().err


@pytest.mark.slow("runs every part of bench.gpu with a tiny model")
def test_all_of_it_runs_in_the_quick_form(tmp_path: Path) -> None:
    assert main(["--quick", "--out", str(tmp_path / "out")]) == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {part.name for part in GPU_PARTS}
    assert "G8 speeds" in (tmp_path / "out" / "images.txt").read_text()
    assert "--short" in (tmp_path / "out" / "generate.txt").read_text()
