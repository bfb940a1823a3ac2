"""Drawings are reproducible, and captions state what is drawn."""

import numpy as np
import pytest
from PIL import Image

from demo_pack.drawing import CLASSES, Scene, draw, draw_scene
from demo_pack.drawing.captions import said, subject_phrase
from demo_pack.drawing.world import BACKGROUNDS, COLOURS, STYLES, SUBJECTS, body_colour

pytestmark = pytest.mark.slow("draws hundreds of pictures, which only the maker of the demo pack does")


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


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (192, 128), (64, 192), (96, 72)])
def test_a_picture_has_the_size_asked_for(size):
    for index in range(6):
        assert draw(1, index, *size).image.size == size


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("class_name", CLASSES)
def test_a_small_picture_is_the_large_one_at_another_resolution(class_name, style):
    shown = Scene(class_name, "red", style, "grass")
    small, large = (draw_scene(shown, np.random.default_rng(8), size, size).image for size in (64, 192))

    shrunk = np.asarray(large.resize((16, 16), Image.Resampling.BOX)).astype(float)
    assert np.abs(shrunk - np.asarray(small.resize((16, 16), Image.Resampling.BOX))).mean() < 6


def test_foxes_and_dogs_are_drawn_twice_as_often_as_the_others():
    weights = {name: subject.weight for name, subject in SUBJECTS.items()}

    assert len(weights) == 18
    assert {weights.pop("fox"), weights.pop("dog")} == {0.1}
    assert set(weights.values()) == {0.05}


def test_four_hundred_pictures_show_every_class_style_and_background():
    shown = [draw(1, index, 32, 32) for index in range(400)]

    assert {drawing.class_name for drawing in shown} == set(CLASSES)
    assert {drawing.style for drawing in shown} == set(STYLES)
    assert {drawing.background for drawing in shown} == set(BACKGROUNDS)
    assert {drawing.colour for drawing in shown} == set(COLOURS)


def test_captions_state_only_what_is_drawn():
    for index in range(250):
        drawing = draw(2, index, 32, 32)
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
        ("a watercolor painting of a purple hot-air balloon under a blue sky", "balloon", "purple"),
        ("red toadstool on white paper", "mushroom", "red"),
        ("a tortoise", "turtle", None),
        ("a cartoon", None, None),
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


def colours_of(class_name: str) -> list[str]:
    """Only dogs are golden."""
    return [name for name in COLOURS if name != "golden" or class_name == "dog"]


def subject_paint(class_name: str, colour: str, seed: int):
    """The most frequent of all colour words' paints among the pixels that change with the colour."""
    names = colours_of(class_name)
    pictures = {name: scene_picture(class_name, name, seed=seed) for name in names}
    changed = np.ptp(np.stack(list(pictures.values())), axis=0).sum(axis=2) > 250
    paints = np.array([body_colour(class_name, name) for name in names])
    distances = np.linalg.norm(pictures[colour][changed][:, None] - paints, axis=2)
    return names[int(np.bincount(distances.argmin(axis=1), minlength=len(names)).argmax())]


@pytest.mark.parametrize(("class_name", "colour"), [(name, colour) for name in CLASSES for colour in colours_of(name)])
def test_most_of_a_subject_wears_its_own_colour_and_no_other(class_name, colour):
    assert subject_paint(class_name, colour, seed=3) == colour


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_style_finishes_the_same_subject_differently(class_name):
    pictures = [scene_picture(class_name, "red", style) for style in STYLES]

    for index, picture in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert np.abs(picture - other).mean() > 1.5


def test_a_red_fox_wears_fox_red():
    assert body_colour("fox", "red") != body_colour("car", "red")


def test_only_young_animals_are_called_puppies_and_kittens():
    rng = np.random.default_rng(0)
    grown = [subject_phrase(rng, "dog", "brown") for _ in range(50)]
    young = [subject_phrase(rng, "dog", "brown", young=True) for _ in range(50)]

    assert "brown puppy" in young
    assert "brown puppy" not in grown
