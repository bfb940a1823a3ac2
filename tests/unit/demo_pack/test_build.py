"""The demo pack's build: a loop that resumes exactly, and the parts of the lessons that can be wrong unseen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from demo_pack.build.clip import contrastive_loss, matches, statements
from demo_pack.build.diffusion import BATCH, Lessons
from demo_pack.build.drawings import Drawings, Order, draw_set, load_set
from demo_pack.build.guidance import SHARE, gentle_noise
from demo_pack.build.loop import (
    CHECKPOINT_EVERY,
    Moment,
    Recipe,
    is_hidden,
    load_average,
    moment,
    pace,
    train,
)
from demo_pack.build.muon import Muon, orthogonalized
from demo_pack.build.vae import initialise, new_vae, standardise

pytestmark = pytest.mark.slow("trains small models, which only the maker of the demo pack runs")

RECIPE = Recipe(steps=2 * CHECKPOINT_EVERY + 30, learning_rate=0.01)


class PowerCut(Exception):
    """The run ends here."""


def fitted(folder: Path, cut_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))

    def loss(now: Moment) -> torch.Tensor:
        if now.step == cut_at:
            raise PowerCut
        pixels = torch.from_numpy(now.rng.standard_normal((16, 4))).float()
        return (model(pixels).squeeze(1) - pixels.sum(dim=1)).square().mean()

    folder.mkdir(exist_ok=True)
    train(folder, "line", model, loss, RECIPE)
    return model.state_dict()


@pytest.mark.parametrize("cut_at", [1, CHECKPOINT_EVERY, CHECKPOINT_EVERY + 37])
def test_a_run_that_was_cut_ends_with_the_weights_of_an_undisturbed_one(tmp_path, cut_at):
    whole = fitted(tmp_path / "whole")
    with pytest.raises(PowerCut):
        fitted(tmp_path / "cut", cut_at)
    resumed = fitted(tmp_path / "cut")

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for name in ("whole", "cut"):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        load_average(tmp_path / name, "line", model)
        weight = model.get_parameter("2.weight")
        assert torch.allclose(weight, whole["2.weight"], atol=0.2)
        assert not torch.equal(weight, whole["2.weight"])


def test_a_finished_run_is_not_trained_again(tmp_path):
    fitted(tmp_path)

    fitted(tmp_path, cut_at=0)


def test_every_step_has_randomness_of_its_own():
    first, again, other, next_one = (moment(name, step, 9) for name, step in [("a", 1), ("a", 1), ("b", 1), ("a", 2)])

    drawn = [now.rng.integers(2**60) for now in (first, again, other, next_one)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_the_learning_rate_warms_up_stays_and_falls():
    rates = [pace(share) for share in (0.001, 0.01, 0.5, 0.75, 1.0)]

    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.51, 0.02])


@pytest.mark.parametrize(
    ("name", "sides", "expected"),
    [
        ("decoder.up_blocks.0.resnets.0.conv1.weight", (8, 8, 3, 3), True),
        ("unet.mid_block.attentions.0.proj_in.weight", (8, 8), True),
        ("layer1.0.conv1.weight", (8, 8, 3, 3), True),
        ("conv1.weight", (8, 3, 7, 7), False),
        ("fc.weight", (2, 8), False),
        ("unet.conv_in.weight", (8, 4, 3, 3), False),
        ("text_encoder.embeddings.token_embedding.weight", (9, 8), False),
        ("encoder.mid_block.resnets.0.norm1.weight", (8,), False),
    ],
)
def test_muon_moves_the_matrices_between_hidden_features(name, sides, expected):
    assert is_hidden(name, nn.Parameter(torch.zeros(sides))) is expected


@pytest.mark.parametrize("sides", [(16, 16), (16, 64), (64, 16)])
def test_an_orthogonalized_matrix_has_like_singular_values_and_the_same_vectors(sides):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(sides, generator=generator)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    well_conditioned = left @ torch.diag(values.clamp(min=0.2 * values.max())) @ right

    result = orthogonalized(well_conditioned)
    assert torch.linalg.svdvals(result).sub(0.95).abs().max() < 0.35
    rotated = left.T @ result @ right.T
    assert (rotated - torch.diag(rotated.diagonal())).abs().max() < 0.15


def test_muon_finds_a_linear_map_and_leaves_parameters_without_gradient_alone():
    torch.manual_seed(0)
    layer, idle, wanted = nn.Linear(8, 8, bias=False), nn.Parameter(torch.ones(2, 2)), torch.randn(8, 8)
    optimizer = Muon([*layer.parameters(), idle], lr=0.05, weight_decay=0.0)
    first = 0.0
    for _ in range(200):
        loss = (layer.weight - wanted).square().mean()
        first = first or float(loss.detach())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    assert float(loss.detach()) < 0.02 * first
    assert torch.equal(idle, torch.ones(2, 2))


def test_an_initialised_autoencoder_is_close_to_the_identity():
    """Before any training, other pictures have other latents, and the posterior is narrow."""
    torch.manual_seed(0)
    vae = new_vae()
    initialise(vae)
    with torch.inference_mode():
        posterior = vae.encode(torch.rand(4, 3, 64, 64) * 2 - 1).latent_dist

    assert posterior.mean.std(dim=0).mean() > posterior.std.mean()
    assert posterior.std.max() < 0.2


def test_a_set_is_drawn_once_and_read_back(tmp_path):
    draw_set(tmp_path, "few", Order(seed=5, count=3, width=64, height=96), processes=1)
    drawn = load_set(tmp_path, "few")
    written = (tmp_path / "few.npy").stat().st_mtime_ns
    draw_set(tmp_path, "few", Order(seed=6, count=3, width=64, height=96), processes=1)

    assert drawn.images.shape == (3, 96, 64, 3)
    assert drawn.batch(np.array([2, 0])).shape == (2, 3, 96, 64)
    assert drawn.batch(np.array([1])).abs().max() <= 1
    assert (tmp_path / "few.npy").stat().st_mtime_ns == written


def test_standardised_latents_have_mean_zero_and_deviation_one_and_decode_as_before():
    torch.manual_seed(0)
    vae, pixels = new_vae().eval(), torch.rand(6, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        latents = vae.encode(pixels).latent_dist.mean
        before = vae.decode(latents).sample
    standardise(vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
    with torch.inference_mode():
        posterior = vae.encode(pixels).latent_dist
        scaled = posterior.mean * vae.config.scaling_factor
        after = vae.decode(scaled / vae.config.scaling_factor).sample

    assert torch.allclose(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(scaled.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("side", [8, 16, 24])
def test_a_batch_of_another_size_costs_about_the_same(side):
    lessons = Lessons(torch.randn(5, 4, side, side), torch.arange(5 * 2 * 77).reshape(5, 2, 77))
    empty = torch.full((77,), -1)
    latents, ids = lessons.batch(moment("any", 0, 10), empty)

    assert latents.shape[1:] == (4, side, side)
    assert len(latents) == len(ids) == min(2 * BATCH, BATCH * 256 // side**2)
    for row, chosen in zip(latents, ids, strict=True):
        which = next(index for index in range(5) if torch.equal(lessons.latents[index], row))
        assert torch.equal(chosen, empty) or any(torch.equal(chosen, known) for known in lessons.token_ids[which])


def drawings_of(*shown: tuple[str, str, str, str]) -> Drawings:
    names, colours, styles, backgrounds = (list(column) for column in zip(*shown, strict=True))
    return Drawings(np.zeros((len(shown), 8, 8, 3), np.uint8), [], names, colours, styles, backgrounds)


def test_a_caption_matches_every_picture_that_shows_all_it_states():
    shown = statements(drawings_of(("fox", "red", "oil", "snow"), ("fox", "blue", "flat", "snow")))

    fits = matches(
        ["a fox", "a red fox", "an oil painting of a fox in the snow", "a cat", "a blue fox at night"], shown
    )

    assert fits.tolist() == [[True, True, True, False, False], [True, False, False, False, False]]


def test_the_contrastive_loss_falls_when_fitting_pairs_are_closer():
    fits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    assert contrastive_loss(8 * fits, fits) < contrastive_loss(torch.zeros(3, 3), fits)
    assert contrastive_loss(torch.zeros(3, 3), fits) < contrastive_loss(-8 * fits, fits)


def test_gentle_noise_keeps_a_share_of_what_the_caption_changes():
    def teacher(noisy: Any, timesteps: Any, ids: Any) -> Any:
        return noisy * timesteps[:, None, None, None] + ids.sum(1)[:, None, None, None]

    noisy, timesteps = torch.randn(3, 4, 2, 2), torch.tensor([999, 400, 3])
    empty = torch.tensor([1, 0])
    ids = torch.tensor([[4, 3], [1, 0], [0, 9]])

    gentle = gentle_noise(teacher, noisy, timesteps, ids, empty)

    without = noisy * timesteps[:, None, None, None] + 1
    caption_change = torch.tensor([6.0, 0.0, 8.0])[:, None, None, None]
    assert torch.allclose(gentle, without + SHARE * caption_change, atol=1e-3)
