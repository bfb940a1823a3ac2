"""The bench of shots: its drawings, its images of shots, and what it compares."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from bench.shots.material import Pictures, drawings_of, make_images
from bench.shots.measure import Labelled, compare
from demo_pack.drawing import draw

NAMES = ("fox", "dog")


def test_drawings_are_the_first_of_each_class_that_the_seed_gives() -> None:
    pictures = drawings_of(300, NAMES, 1)
    assert pictures.labels.tolist() == [0, 1]
    for name, image in zip(NAMES, pictures.images, strict=True):
        index = next(k for k in range(1_000) if draw(300, k, 16, 16).class_name == name)
        assert image.tobytes() == draw(300, index).image.tobytes()


@dataclass
class FakeArtist:
    """Returns each spec's own shot."""

    specs: list[Any]

    def images(self, specs: Any, pictures: Any) -> list[Image.Image]:
        self.specs = list(specs)
        return [Image.fromarray(pictures[spec.init_image.sha256]) if spec.init_image else BLACK for spec in specs]


BLACK = Image.new("RGB", (8, 8))


def test_images_of_shots_begin_with_those_of_their_class_and_images_of_prompts_with_none() -> None:
    colours = [Image.new("RGB", (8, 8), (index, 0, 0)) for index in range(4)]
    shots, artist = Pictures(colours, np.array([0, 0, 1, 1])), FakeArtist([])
    made = make_images(artist, NAMES, shots, strength=0.5, per_class=3, seed=1)  # type: ignore[arg-type]
    levels = [image.getpixel((0, 0))[0] for image in made.images]  # type: ignore[index]
    assert made.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(levels[:3]) == {0, 1}
    assert set(levels[3:]) == {2, 3}
    assert {spec.strength for spec in artist.specs} == {0.5}
    make_images(artist, NAMES, None, strength=1.0, per_class=1, seed=1)  # type: ignore[arg-type]
    assert {spec.strength for spec in artist.specs} == {None}


def test_arms_are_compared_with_the_first_on_the_same_pictures() -> None:
    axes = np.eye(2, dtype=np.float32)
    right = Labelled(axes, np.array([0, 1]))
    wrong = Labelled(axes, np.array([1, 0]))
    test = Labelled(np.repeat(axes, 20, axis=0), np.repeat([0, 1], 20))
    first, second = compare({"wrong": wrong, "right": right}, test)
    assert (first.accuracy.value, first.gain, second.accuracy.value) == (0.0, None, 1.0)
    assert second.gain is not None
    assert second.gain.is_better
    assert right.repeated(2).labels.tolist() == [0, 1, 0, 1]
    assert (right + wrong).labels.tolist() == [0, 1, 1, 0]
