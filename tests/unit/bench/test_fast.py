"""The comparison of `fast` with 50 exact steps: prompts, intervals, and what goes into the manifest."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.image_spec import FewStepSettings
from app.schemas.service import SpeedMeasurement
from bench.fast.__main__ import write_speed
from bench.fast.measure import Measured, for_manifest, make_specs, render, wishes

FEW_STEP = FewStepSettings(4, 8, 1.0, "ddim", "trailing")
CLASSES = ("fox", "dog")


def measured(*hits: float) -> Measured:
    return Measured.of("clip_class_accuracy", np.ones(len(hits), np.float32), np.array(hits, np.float32))


def test_both_speeds_draw_the_same_prompts_and_seeds() -> None:
    wanted = wishes(CLASSES, 6)
    exact, fast = (make_specs(wanted, CLASSES, settings) for settings in (None, FEW_STEP))
    assert [(spec.prompt, spec.seed) for spec in exact] == [(spec.prompt, spec.seed) for spec in fast]
    assert (sum(exact[0].step_rows), sum(fast[0].step_rows)) == (100, 4)
    assert all(each.colour in spec.prompt for each, spec in zip(wanted, exact, strict=True))


def test_the_table_has_intervals_and_says_what_is_missed() -> None:
    fine, worse = measured(*[1.0] * 40), measured(*[1.0, 0.0] * 20)
    assert fine.interval == pytest.approx((0.912, 1.0), abs=0.001)
    assert worse.change == -0.5
    lines = render([fine, worse, Measured("clip_score", 30.0, 29.0, -1.0, 0.1, None)], 0.3, 40).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["ok", "MISSED", "0.1000", "MISSED"]


def test_the_manifest_gets_the_figures_of_the_weights_that_were_measured(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    quality = {"speeds": {"balanced": [{"rows": 40}]}}
    path.write_text(json.dumps({"few_step": {"file": {"sha256": "abc"}}, "quality": quality}))
    entry = {"prompts": 40, **for_manifest(FEW_STEP, (4, 100), [measured(1.0, 0.0)], 20.0, 0.2)}
    write_speed(tmp_path, "abc", entry)
    speeds = json.loads(path.read_text())["quality"]["speeds"]
    assert speeds == {"balanced": [{"rows": 40}], "fast": [entry]}
    assert SpeedMeasurement.model_validate(entry).model_dump() == entry
    with pytest.raises(ValueError, match="by now"):
        write_speed(tmp_path, "other", entry)
