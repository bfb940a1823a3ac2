"""The drawings as blueprints: blue paper, light contours, and the same picture for the same number."""

import numpy as np
from PIL import Image

from bench.lora.__main__ import blue_share, make_specs
from demo_pack.drawing.blueprint import blueprint, draw_blueprint, write
from demo_pack.drawing.captions import said


def test_contours_are_light_and_all_else_is_blue() -> None:
    picture = np.full((128, 128, 3), 0.2, np.float32)
    picture[40:88, 40:88] = (0.9, 0.1, 0.1)
    drawn = blueprint(picture)
    assert drawn[40, 60].min() > 0.7
    assert drawn[58, 60, 2] - drawn[58, 60, 0] > 0.2
    assert blue_share(Image.fromarray((drawn * 255).astype(np.uint8))) > 0.8


def test_pictures_are_named_by_true_captions(tmp_path) -> None:
    first = draw_blueprint(3)
    assert first.image.tobytes() == draw_blueprint(3).image.tobytes() != draw_blueprint(4).image.tobytes()
    assert {said(caption).class_name for caption in first.captions} == {first.class_name}
    assert 0.5 < blue_share(first.image) < 1
    write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "00000.txt", "00001.png", "00001.txt"]


def test_all_weights_have_the_same_prompts_and_seeds() -> None:
    plain, styled = (make_specs(("fox", "dog"), 4, "blueprint", weight) for weight in (0.0, 1.0))
    assert [(spec.prompt, spec.seed) for spec in plain] == [(spec.prompt, spec.seed) for spec in styled]
    assert (plain[0].loras, styled[0].loras[0].weight) == ((), 1.0)
