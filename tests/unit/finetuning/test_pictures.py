"""Training pictures: their order, their random changes, and how many are prepared ahead."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.finetuning.pictures import AHEAD, BatchLoader, augmented, dice_of, epoch_order
from app.finetuning.plan import Example
from app.finetuning.settings import AugmentSettings
from app.modelpacks.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(resize=36, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3)
NOTHING = AugmentSettings(area=None, flip=False, colour=0)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


class LazyPool(Executor):
    """Runs what is submitted at once and counts it."""

    def __init__(self) -> None:
        self.num_submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.num_submitted += 1
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_the_order_is_that_of_one_generator_drawn_from_once_an_epoch() -> None:
    generator = torch.Generator().manual_seed(4)
    for epoch in (1, 2, 3):
        assert epoch_order(20, seed=4, epoch=epoch) == torch.randperm(20, generator=generator).tolist()


def test_changes_depend_on_seed_epoch_and_picture_alone() -> None:
    def drawn(seed: int, epoch: int, index: int) -> torch.Tensor:
        return augmented(picture(), AugmentSettings(), PREPROCESSING, dice_of(seed, epoch, index))

    first = drawn(1, 1, 1)
    torch.rand(3)  # of the global generator
    assert torch.equal(drawn(1, 1, 1), first)
    assert first.shape == (3, 32, 32)
    for other in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        assert not torch.equal(drawn(*other), first)


def test_without_changes_a_picture_is_prepared_as_for_validation() -> None:
    expected = PREPROCESSING.transform()(picture())
    torch.testing.assert_close(augmented(picture(), NOTHING, PREPROCESSING, dice_of(0, 1, 0)), expected)


def test_half_of_the_pictures_are_mirrored() -> None:
    plain = PREPROCESSING.transform()(picture())
    settings = replace(NOTHING, flip=True)
    drawn = [augmented(picture(), settings, PREPROCESSING, dice_of(0, 1, index)) for index in range(200)]
    num_mirrored = sum(torch.allclose(one, plain.flip(-1)) for one in drawn)
    assert num_mirrored + sum(torch.allclose(one, plain) for one in drawn) == 200
    assert 70 < num_mirrored < 130


def test_colours_stay_within_their_range() -> None:
    grey = Image.new("RGB", (40, 40), (100, 100, 100))
    settings = replace(NOTHING, colour=0.3)
    drawn = [augmented(grey, settings, PREPROCESSING, dice_of(0, 1, index)) for index in range(100)]
    levels = [float((one.mean() * 0.5 + 0.5) * 255) for one in drawn]
    assert 69 <= min(levels) < 80
    assert 120 < max(levels) <= 131


@pytest.mark.parametrize("size", [(1, 1), (200, 3), (3, 200)])
def test_any_picture_can_be_cut(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert augmented(image, AugmentSettings(), PREPROCESSING, dice_of(0, 1, 0)).shape == (3, 32, 32)


def test_no_more_than_a_few_batches_are_prepared_ahead() -> None:
    pool, examples = LazyPool(), [Example(Path(), index % 3, "") for index in range(50)]
    loader = BatchLoader(examples, range(50), 4, lambda index: torch.full((3, 2, 2), index), pool)
    for number, (pixels, labels) in enumerate(loader):
        indices = list(range(50))[4 * number : 4 * number + 4]
        assert pixels[:, 0, 0, 0].tolist() == indices
        assert labels.tolist() == [index % 3 for index in indices]
        assert pool.num_submitted == min(50, 4 * (number + 1 + AHEAD))


def test_a_pictures_fault_is_raised_at_its_batch() -> None:
    def prepare(index: int) -> torch.Tensor:
        if index == 5:
            raise ValueError("five")
        return torch.zeros(3, 2, 2)

    with ThreadPoolExecutor(2) as pool:
        loader = BatchLoader([Example(Path(), 0, "")] * 8, range(8), 4, prepare, pool)
        next(loader)
        with pytest.raises(ValueError, match="five"):
            next(loader)
