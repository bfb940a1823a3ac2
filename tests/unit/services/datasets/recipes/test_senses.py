"""The meaning of an ambiguous class name follows from the other classes."""

import numpy as np

from app.services.datasets.recipes.senses import candidates, choose_senses

BIRD, MACHINE, BETWEEN = np.eye(3, dtype=np.float32)


def rows(*vectors: np.ndarray) -> np.ndarray:
    return np.stack(vectors)


def test_the_candidate_near_the_other_classes_is_chosen() -> None:
    crane = rows(BIRD, MACHINE)
    assert choose_senses([crane, rows(BIRD), rows(BIRD)]) == (0, 0, 0)
    assert choose_senses([crane, rows(MACHINE), rows(MACHINE)]) == (1, 0, 0)


def test_two_ambiguous_names_agree_on_a_meaning() -> None:
    third = rows(MACHINE)
    assert choose_senses([rows(BIRD, MACHINE), rows(BIRD, MACHINE), third]) == (1, 1, 0)


def test_without_evidence_the_first_candidate_stays() -> None:
    assert choose_senses([rows(BIRD, MACHINE)]) == (0,)
    assert choose_senses([rows(BIRD, MACHINE), rows(BETWEEN)]) == (0, 0)


def test_a_name_without_glosses_means_itself() -> None:
    assert candidates("aardvark") == ("aardvark",)
    assert len(candidates(" Crane ")) == 2
