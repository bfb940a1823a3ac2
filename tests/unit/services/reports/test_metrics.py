"""Figures of a report on embeddings made by hand."""

import itertools

import numpy as np
import pytest

from app.services.reports.metrics import confusion, diversity, near_duplicates, ranked, shares, softmax


def random_embeddings(num: int, size: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(3).normal(size=(num, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planted(num: int, twins: list[tuple[int, int]]) -> np.ndarray:
    """Random embeddings, of which the second of each pair almost equals the first."""
    embeddings = random_embeddings(num)
    for first, second in twins:
        nudged = embeddings[first] + 0.01 * embeddings[second]
        embeddings[second] = nudged / np.linalg.norm(nudged)
    return embeddings


# Within a block of rows, across two, and over the first and the last.
TWINS = [(3, 4), (5, 700), (0, 1299)]


def test_planted_duplicates_are_found_wherever_they_stand() -> None:
    found = near_duplicates(planted(1300, TWINS), 0.99, 10)
    assert found.num_pairs == 3
    assert {(pair.first, pair.second) for pair in found.closest} == set(TWINS)
    assert np.flatnonzero(found.is_member).tolist() == sorted(itertools.chain(*TWINS))
    cosines = [pair.cosine for pair in found.closest]
    assert cosines == sorted(cosines, reverse=True)
    assert all(0.99 < cosine <= 1 for cosine in cosines)


def test_only_pairs_across_groups_are_leakage() -> None:
    groups = np.zeros(1300, dtype=np.int64)
    groups[[700, 3, 4]] = 1
    found = near_duplicates(planted(1300, TWINS), 0.99, 10, groups=groups)
    assert [(pair.first, pair.second) for pair in found.closest] == [(5, 700)]
    assert (found.num_pairs, np.flatnonzero(found.is_member).tolist()) == (1, [5, 700])


def test_pairs_agree_with_the_whole_matrix() -> None:
    embeddings = random_embeddings(600, size=3)
    rows, columns = np.triu_indices(600, 1)
    cosines = (embeddings @ embeddings.T)[rows, columns]
    found = near_duplicates(embeddings, 0.9, 50)
    assert found.num_pairs == int((cosines >= 0.9).sum()) > 50
    assert [pair.cosine for pair in found.closest] == pytest.approx(np.sort(cosines)[::-1][:50].tolist(), abs=1e-6)


def test_of_equal_images_all_pairs_are_counted_and_few_are_named() -> None:
    found = near_duplicates(np.tile(random_embeddings(1), (1000, 1)), 0.99, 7)
    assert (found.num_pairs, len(found.closest), bool(found.is_member.all())) == (1000 * 999 // 2, 7, True)


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_images_have_neither_pairs_nor_diversity(num: int) -> None:
    embeddings = random_embeddings(num)
    found = near_duplicates(embeddings, 0.5, 5)
    assert (found.num_pairs, found.closest, bool(found.is_member.any())) == (0, [], False)
    assert diversity(embeddings) is None


def test_diversity_is_the_mean_cosine_distance_of_all_pairs() -> None:
    embeddings = random_embeddings(40)
    rows, columns = np.triu_indices(40, 1)
    expected = float((1 - embeddings @ embeddings.T)[rows, columns].mean())
    assert diversity(embeddings) == pytest.approx(expected, abs=1e-6)
    assert diversity(np.tile(embeddings[:1], (9, 1))) == pytest.approx(0, abs=1e-6)


def test_confusion_names_the_cells_that_are_not_zero_whatever_the_number_of_classes() -> None:
    own, predicted = np.array([0, 0, 0, 999, 999, 7]), np.array([0, 0, 5, 999, 999, 0])
    assert confusion(own, predicted, 1_000) == [(0, 0, 2), (999, 999, 2), (0, 5, 1), (7, 0, 1)]
    assert confusion(own[:0], predicted[:0], 3) == []


def test_shares_are_of_the_most_frequent_values() -> None:
    assert shares(np.array([4, 9, 9, 2]), 2) == [(9, 2, 0.5), (2, 1, 0.25)]
    assert shares(np.array([], dtype=np.int64), 2) == []


def test_softmax_and_ranks() -> None:
    rows = softmax(np.array([[1_000, 0, 0], [1, 1, 1]], dtype=np.float32))
    assert rows.tolist() == [[1, 0, 0], pytest.approx([1 / 3] * 3)]
    assert ranked(np.array([0.5, 0.1, 0.5, 0.9], dtype=np.float32)).tolist() == [1, 0, 2, 3]
