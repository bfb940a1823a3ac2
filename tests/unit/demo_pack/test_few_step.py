"""The distillation of the demo pack: the noise that a step should predict, the factors, and what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.func import functional_call

from app.modelpacks.fusing import add_deltas, layer_shapes
from app.modelpacks.lora_file import read_lora
from demo_pack.build.diffusion import new_noise_scheduler
from demo_pack.build.few_step import Lessons, Noise
from demo_pack.build.loop import Moment
from demo_pack.build.lora import Factors
from demo_pack.build.trajectories import CHUNK, FEW_STEPS, Order, orders, prompts_of
from demo_pack.drawing.captions import said

pytestmark = pytest.mark.slow("the training code of the demo pack, which only its maker runs")

SCHEDULE = dict(new_noise_scheduler().config)


@pytest.mark.parametrize("index", range(FEW_STEPS))
def test_the_wanted_noise_leads_ddim_to_the_next_sample(index: int) -> None:
    ddim = DDIMScheduler.from_config(SCHEDULE, timestep_spacing="trailing")
    ddim.set_timesteps(FEW_STEPS)
    noise = Noise.of(SCHEDULE)
    assert noise.timesteps.tolist() == ddim.timesteps.tolist()
    before, after = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(index))
    wanted = noise.wanted(before, after, torch.full((3,), index))
    stepped = ddim.step(wanted, ddim.timesteps[index], before).prev_sample
    torch.testing.assert_close(stepped, after, rtol=1e-3, atol=1e-3)


def test_the_error_is_that_of_velocity() -> None:
    noise, index = Noise.of(SCHEDULE), torch.arange(FEW_STEPS)
    wrong = torch.ones(FEW_STEPS, 4, 2, 2) * noise.image[:FEW_STEPS, None, None, None]
    assert float(noise.error(wrong, torch.zeros_like(wrong), index)) == pytest.approx(0.97, abs=0.01)
    assert float(noise.error(wrong, wrong, index)) == pytest.approx(0, abs=1e-6)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 6))


def test_factors_begin_as_no_change_and_end_as_the_file_that_the_service_reads(tmp_path: Path) -> None:
    model, sample = network(), torch.randn(2, 4, 4, 4)
    factors = Factors(model, rank=5)
    torch.testing.assert_close(functional_call(model, factors.weights(), (sample,)), model(sample))
    for up in factors.up.values():
        nn.init.normal_(up)
    factors.save(tmp_path / "changed.safetensors", "unet")
    shapes = {"unet": layer_shapes(model), "text_encoder": {}}
    file = read_lora(tmp_path / "changed.safetensors", shapes)
    assert file.rank == 5
    changed = network()
    add_deltas(changed, ((name, 1.0, delta) for name, delta in file.deltas("unet", shapes)))
    expected = functional_call(model, factors.weights(), (sample,))
    torch.testing.assert_close(changed(sample), expected, rtol=0.02, atol=0.02)  # the file is float16
    assert not torch.allclose(expected, model(sample), atol=0.1)


def test_a_batch_has_neighbouring_samples_of_one_trajectory() -> None:
    states = torch.arange(20.0).reshape(2, 2, 5)[0].flatten()[:10].reshape(2, 5, 1, 1, 1).half()
    lessons = Lessons(states.expand(2, 5, 4, 16, 16), torch.arange(2.0).reshape(2, 1, 1).expand(2, 77, 128))
    before, after, index, words = lessons.batch(Moment(0, 0.0, np.random.default_rng(0)))
    assert set(index.tolist()) == set(range(FEW_STEPS))
    assert torch.equal(after, before + 1)
    assert torch.equal(before[:, 0, 0, 0], 5 * words[:, 0, 0] + index)


def test_the_chunks_cover_every_class_and_size_and_never_change() -> None:
    numbers = [order.number for order in orders()]
    assert len(set(numbers)) == len(numbers)
    prompts = prompts_of(Order(0, CHUNK))
    assert prompts == prompts_of(Order(0, CHUNK))
    assert prompts != prompts_of(Order(1, CHUNK))
    assert len({said(prompt).class_name for prompt in prompts}) == 18
