"""The drawn world: reproducible pictures, and captions that say what is drawn."""

import numpy as np
import pytest

from app.modelpacks.demo.drawing import CLASSES, Scene, draw, draw_scene
from app.modelpacks.demo.drawing.captions import said
from app.modelpacks.demo.drawing.world import BACKGROUNDS, COLOURS, STYLES, body_colour


def scene_picture(class_name: str, colour: str, style: str = "flat", background: str = "plain", seed: int = 3):
    drawing = draw_scene(Scene(class_name, colour, style, background), np.random.default_rng(seed))
    return np.asarray(drawing.image).astype(float)


@pytest.mark.parametrize("index", [0, 1, 17])
def test_a_picture_is_a_pure_function_of_seed_and_index(index):
    first, again = draw(5, index), draw(5, index)

    assert first.image.tobytes() == again.image.tobytes()
    assert first.captions == again.captions
    assert draw(6, index).image.tobytes() != first.image.tobytes()
    assert draw(5, index + 1).image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("size", [64, 128])
def test_a_picture_has_the_size_asked_for(size):
    assert draw(1, 1, size).image.size == (size, size)


def test_two_hundred_pictures_show_every_class_style_and_background():
    shown = [draw(1, index, size=32) for index in range(200)]

    assert {drawing.class_name for drawing in shown} == set(CLASSES)
    assert {drawing.style for drawing in shown} == set(STYLES)
    assert {drawing.background for drawing in shown} == set(BACKGROUNDS)
    assert {drawing.colour for drawing in shown} == set(COLOURS)


def test_captions_never_say_what_is_not_drawn():
    for index in range(150):
        drawing = draw(2, index, size=32)
        for caption in drawing.captions:
            words = said(caption)
            assert words.class_name == drawing.class_name, caption
            assert words.colour in (None, drawing.colour), caption
            assert words.style in (None, drawing.style), caption
            assert words.background in (None, drawing.background), caption


@pytest.mark.parametrize(
    ("label", "class_name", "colour"),
    [
        ("a watercolor painting of a red fox", "fox", "red"),
        ("a watercolor painting of a golden retriever", "dog", "golden"),
        ("an oil painting of a white kitten on green grass", "cat", "white"),
        ("a photo of a puppy under a blue sky", "dog", None),
        ("something else", None, None),
    ],
)
def test_a_caption_is_understood_without_the_colours_of_its_background(label, class_name, colour):
    words = said(label)

    assert (words.class_name, words.colour) == (class_name, colour)


@pytest.mark.parametrize("class_name", CLASSES)
def test_the_colour_word_paints_the_subject(class_name):
    blue = scene_picture(class_name, "blue")
    yellow = scene_picture(class_name, "yellow")

    changed = np.abs(blue - yellow).sum(axis=2) > 120
    assert 0.02 < changed.mean() < 0.7
    painted = blue[changed]
    assert painted[:, 2].mean() > painted[:, 0].mean() + 25


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_style_finishes_the_same_subject_differently(class_name):
    pictures = [scene_picture(class_name, "red", style) for style in STYLES]

    for index, picture in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert np.abs(picture - other).mean() > 1.5


def test_a_red_fox_wears_fox_red():
    assert body_colour("fox", "red") != body_colour("car", "red")
