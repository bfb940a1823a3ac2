"""The colours of latents, and which steps of an image leave what they predict."""

import numpy as np
import torch

from app.engine.diffusion.previews import LatentColours, PreviewTap, fit_colours, smooth_latents

MATRIX = np.array([[0.1, 0.0, 0.2], [0.0, -0.1, 0.0], [0.05, 0.1, 0.0], [0.0, 0.0, 0.1]], np.float32)
BIAS = np.array([0.4, 0.5, 0.6], np.float32)


def test_a_linear_decoder_is_found_exactly() -> None:
    latents = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    colours = np.einsum("nchw,cd->nhwd", latents, MATRIX) + BIAS
    pictures = colours.repeat(8, axis=1).repeat(8, axis=2)
    pictures[:, ::2] += 0.03  # texture inside of the blocks, whose mean stays
    pictures[:, 1::2] -= 0.03
    fitted = fit_colours(latents, pictures)
    np.testing.assert_allclose(fitted.matrix, MATRIX, atol=1e-5)
    np.testing.assert_allclose(fitted.bias, BIAS, atol=1e-5)


def test_colours_are_rounded_and_stay_in_range() -> None:
    latents = np.array([0.0, 0.2, 1e9, -1e9, np.nan], np.float32).reshape(1, 1, 5)
    pixels = LatentColours(np.ones((1, 3), np.float32), np.zeros(3, np.float32)).pixels(latents)
    assert pixels.shape == (1, 5, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, :, 0].tolist() == [0, 51, 255, 0, 0]


def test_only_due_steps_are_reported_with_what_they_predict() -> None:
    told: list[tuple[object, ...]] = []
    tap = PreviewTap(3, lambda *step: told.append(step), lambda *step: told.append(step))
    for done in range(1, 8):
        if tap.is_due(done):
            tap.x0 = torch.tensor(float(done))
        tap(done, 7)
    assert [len(step) for step in told] == [2, 2, 3, 2, 2, 3, 2]
    assert told[5] == (6, 7, torch.tensor(6.0))
    assert tap.x0 is None


def test_the_latents_that_are_fitted_on_are_always_the_same() -> None:
    assert torch.equal(smooth_latents(4), smooth_latents(4))
    assert 0.5 < smooth_latents(4).std() < 1.5, "as those of pictures"
