"""The validation split is stratified, seeded, and bound to the images instead of their order."""

import numpy as np
import pytest

from app.training.splits import validation_rows

LABELS = np.array([0] * 40 + [1] * 10 + [2] * 2 + [3])
IDS = [f"image-{row}" for row in range(len(LABELS))]


def chosen(ids: list[str], labels: np.ndarray, *, fraction: float = 0.2, seed: int = 0) -> set[str]:
    mask = validation_rows(ids, labels, fraction=fraction, seed=seed)
    return {name for name, is_chosen in zip(ids, mask, strict=True) if is_chosen}


def test_every_class_gives_its_share_and_keeps_a_row() -> None:
    mask = validation_rows(IDS, LABELS, fraction=0.2, seed=0)
    assert np.bincount(LABELS[mask], minlength=4).tolist() == [8, 2, 1, 0]


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_no_fraction_empties_a_class_or_spares_one(fraction: float) -> None:
    mask = validation_rows(IDS, LABELS, fraction=fraction, seed=3)
    assert (np.bincount(LABELS[~mask], minlength=4) >= 1).all()
    assert (np.bincount(LABELS[mask], minlength=4)[:3] >= 1).all()


def test_the_order_of_the_rows_changes_nothing() -> None:
    order = np.random.default_rng(1).permutation(len(LABELS))
    assert chosen([IDS[row] for row in order], LABELS[order]) == chosen(IDS, LABELS)


def test_the_seed_changes_the_choice_and_repeats_it() -> None:
    assert chosen(IDS, LABELS, seed=1) == chosen(IDS, LABELS, seed=1) != chosen(IDS, LABELS, seed=2)


def test_most_images_keep_their_side_when_others_are_added() -> None:
    more = [*IDS, *(f"new-{row}" for row in range(10))]
    before, after = chosen(IDS, LABELS), chosen(more, np.append(LABELS, [0] * 10))
    assert len(before - after) <= 3


def test_the_views_of_an_image_stay_together_and_count_once() -> None:
    ids, labels = IDS * 3, np.tile(LABELS, 3)
    mask = validation_rows(ids, labels, fraction=0.2, seed=0)
    assert chosen(ids, labels) == chosen(IDS, LABELS)
    assert mask.reshape(3, -1).all(axis=0).tolist() == mask.reshape(3, -1).any(axis=0).tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        validation_rows(IDS, LABELS, fraction=fraction, seed=0)


def test_ids_and_labels_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one id per label"):
        validation_rows(IDS[1:], LABELS, fraction=0.2, seed=0)
