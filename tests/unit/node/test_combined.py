"""Features of several backbones as one: those that a head gets are those that it was trained on."""

import numpy as np

from app.node.combined import combine_rows
from app.training.from_prompts import combine


def test_served_features_are_those_that_heads_are_trained_on() -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.normal(size=(5, size)).astype(np.float32) * scale for name, size, scale in
             (("resnet18", 512, 30.0), ("photo", 1280, 1e-3), ("clip", 64, 1.0))}  # fmt: skip
    parts["photo"][3] = 0  # stays as it is, and is not divided by 0
    served = combine_rows(list(parts.values()))
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, combine(parts, list(parts)), rtol=1e-6, atol=1e-7)
    views = combine_rows([rows[:, None] for rows in parts.values()])
    assert np.array_equal(views[:, 0], served)
