"""Views by other hands: the subject is found and cut, sizes and seeds hold."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.services.images.hand_views import LOOKS, Look, find_subject, make_view

DISC = (40, 30, 90, 80)


def picture(side: int = 128, *, washed: bool = False) -> Image.Image:
    """A red disc with a dark outline on paper, with a soft wash behind it on request."""
    pixels = np.full((side, side, 3), 250, np.float32)
    if washed:
        ys, xs = np.mgrid[:side, :side] / side - 0.5
        pixels[..., 0] -= 90 * np.exp(-8 * (xs**2 + ys**2))
    image = Image.fromarray(pixels.astype(np.uint8))
    unit = side / 128
    box = [value * unit for value in DISC]
    ImageDraw.Draw(image).ellipse(box, fill=(200, 30, 30), outline=(20, 20, 20), width=round(3 * unit))
    return image


@pytest.mark.parametrize("washed", [False, True])
@pytest.mark.parametrize("side", [128, 256])
def test_the_subject_is_found_on_paper_and_on_a_wash(washed: bool, side: int) -> None:
    subject = find_subject(np.asarray(picture(side, washed=washed)))
    assert subject is not None
    assert np.abs(np.array(subject.box) - np.array(DISC) * side / 128).max() <= 3 * side / 128
    centre = round(55 * side / 128), round(65 * side / 128)
    assert subject.mask[centre]
    assert not subject.mask[2, 2]


def test_an_empty_page_and_a_full_one_have_no_subject() -> None:
    assert find_subject(np.full((64, 64, 3), 255, np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert find_subject(noise) is None


def test_a_cut_subject_stands_on_plain_paper() -> None:
    """The wash is gone: in every corner is one colour, and it is the same in all corners that the disc leaves free."""
    whites = 0
    for seed in range(20):
        view = np.asarray(make_view(picture(washed=True), Look(repaints=False), seed))
        corners = view[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == corners[0]).all()
        whites += int((corners == 255).all())
    assert 10 <= whites < 20


@pytest.mark.parametrize("look", sorted(set(LOOKS), key=repr))
def test_equal_seeds_give_equal_views_and_others_differ(look: Look) -> None:
    image = picture()
    first, again, other = (np.asarray(make_view(image, look, seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (128, 96), (33, 200)])
def test_every_size_keeps_its_size(size: tuple[int, int]) -> None:
    image = picture().resize(size)
    for seed in range(12):
        for look in set(LOOKS):
            assert make_view(image, look, seed).size == size
