"""The comparison of two speeds: what counts as alike, as a loss, and what goes into the manifest."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.schemas.service import SpeedMeasurement
from bench.speed.__main__ import render, write_speeds
from bench.speed.measure import Comparison, Judged, compare, make_specs, paired, psnr_db

CLASSES = ("fox", "dog")


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (level,) * 3)


def judged(hits: list[float]) -> Judged:
    scores = np.full(4, 30.0, np.float32)
    return Judged(scores, np.ones(4, np.float32), np.array(hits, np.float32))


def make_comparison(hits: list[float]) -> Comparison:
    exact, balanced = (make_specs(CLASSES, 4, "pndm", speed) for speed in ("exact", "balanced"))
    images = [grey(level) for level in (10, 20, 30, 40)], [grey(level) for level in (11, 21, 31, 41)]
    return compare(exact, balanced, images, (judged([1.0] * 4), judged(hits)))


def test_psnr_is_that_of_one_level_of_255() -> None:
    assert psnr_db(grey(10), grey(11)) == pytest.approx(20 * np.log10(255))
    assert psnr_db(grey(10), grey(10)) == 99.0


def test_a_loss_is_a_change_beyond_chance() -> None:
    exact, wave = np.linspace(0, 1, 50, dtype=np.float32), 0.1 * np.cos(np.arange(50))
    worse, shaken = ((exact + change).astype(np.float32) for change in (0.1 * wave - 0.1, wave))
    assert paired(exact, worse).is_loss
    assert not paired(exact, shaken).is_loss
    assert not paired(exact, exact).is_loss


def test_both_speeds_draw_the_same_prompts_and_seeds() -> None:
    exact, balanced = (make_specs(CLASSES, 6, "ddim", speed) for speed in ("exact", "balanced"))
    assert [(spec.prompt, spec.seed) for spec in exact] == [(spec.prompt, spec.seed) for spec in balanced]
    assert len({spec.prompt for spec in exact}) == 6


def test_the_table_says_what_is_missed() -> None:
    fine, worse = make_comparison([1.0] * 4), make_comparison([0.0] * 4)
    assert (fine.rows, fine.rows_exact) == (40, 102)
    lines = render([fine, worse]).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["ok", "MISSED"]


def test_the_manifest_gets_the_speeds_beside_the_rest_and_keeps_its_revision(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"revision": "abc", "quality": {"judge": {"generated": 1.0}}}))
    write_speeds(tmp_path, "abc", [make_comparison([1.0] * 4)])
    manifest = json.loads(path.read_text())
    assert (manifest["revision"], manifest["quality"]["judge"]) == ("abc", {"generated": 1.0})
    [entry] = manifest["quality"]["speeds"]["balanced"]
    assert SpeedMeasurement.model_validate(entry).model_dump() == entry
    with pytest.raises(ValueError, match="by now"):
        write_speeds(tmp_path, "other", [])
