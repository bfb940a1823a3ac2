"""How a GPU takes its forwards, on the CPU: row buckets, one fixed number of rows, recorded and compiled forwards.

The recorder is a fake, and the compiler traces as torch's does but generates no code; all else is what a GPU runs.
Kernels and the order of streams are not tested here.
"""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from app.engine.diffusion.denoiser import Denoiser
from app.engine.diffusion.image_state import ImageState
from app.engine.diffusion.invariance import FixedRowsLinear
from app.engine.diffusion.noise.plan import REMEMBERED, make_noise_plan
from app.engine.diffusion.noise.update import draw_noise
from app.engine.diffusion.options import GPU_ROWS, ROW_BUCKETS, DenoisingOptions, options_for
from app.engine.kernels.compile import compile_forward
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack
from testing.tiny import NOISE_SCHEDULER
from tests.parity.conftest import CPU
from tests.unit.engine.kernels.test_cuda import Recorder

BUCKETS = DenoisingOptions(sizes=ROW_BUCKETS, batch_invariant=False)


@pytest.fixture(scope="module")
def unet(tiny_pack: ModelPack) -> torch.nn.Module:
    model: torch.nn.Module = load_diffusion(tiny_pack, CPU, torch.float32).unet
    return model


def embeds(seed: int) -> torch.Tensor:
    return torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(seed))


def make_denoiser(unet: torch.nn.Module, options: DenoisingOptions) -> Denoiser:
    return Denoiser(copy.deepcopy(unet), CPU, embeds(0), options)


def start(seed: int, rows: int = 2, name: str = "ddim") -> ImageState:
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.zeros(1 + REMEMBERED, 4, 8, 8)
    tensors[0] = draw_noise((4, 8, 8), generator, CPU, torch.float32)
    prompts = torch.cat([embeds(0), embeds(seed + 1)][-rows:])
    return ImageState(make_noise_plan(name, 4, NOISE_SCHEDULER), prompts, 3.0, generator, tensors)


def finish(denoiser: Denoiser, *images: ImageState) -> list[torch.Tensor]:
    while not images[0].is_denoised:
        denoiser.step(images)
    return [image.latents for image in images]


def mixed(num_images: int) -> list[ImageState]:
    return [start(seed, 1 + seed % 2, ("ddim", "euler_a")[seed % 2]) for seed in range(num_images)]


def test_forwards_have_the_rows_of_a_bucket_and_the_images_do_not_change(unet: torch.nn.Module) -> None:
    denoiser = make_denoiser(unet, BUCKETS)
    expected = [finish(make_denoiser(unet, DenoisingOptions()), *mixed(seed + 1))[seed] for seed in range(4)]
    forwards: list[int] = []
    denoiser._unet.register_forward_pre_hook(lambda _, inputs: forwards.append(inputs[0].shape[0]))

    made = finish(denoiser, *mixed(4))  # 1 + 2 + 1 + 2 rows

    assert forwards == [8] * 4
    assert (denoiser.row_count.wanted, denoiser.row_count.padding) == (4 * 6, 4 * 2)
    for mine, theirs in zip(made, expected, strict=True):
        assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_more_rows_than_the_largest_bucket_are_split(unet: torch.nn.Module) -> None:
    denoiser = make_denoiser(unet, replace(BUCKETS, sizes=(2, 4)))
    forwards: list[int] = []
    denoiser._unet.register_forward_pre_hook(lambda _, inputs: forwards.append(inputs[0].shape[0]))
    denoiser.step(mixed(4))
    assert forwards == [4, 2]


def test_recorded_forwards_give_the_same_bytes_as_those_that_run(unet: torch.nn.Module) -> None:
    recorder = Recorder()
    plain, recorded = make_denoiser(unet, BUCKETS), make_denoiser(unet, replace(BUCKETS, record=recorder))

    for num_images in (4, 1, 4):
        for mine, theirs in zip(finish(recorded, *mixed(num_images)), finish(plain, *mixed(num_images)), strict=True):
            assert torch.equal(mine, theirs)

    assert recorder.num_recordings == 2, "one for each number of rows"
    assert recorder.replays == 12


def test_a_compiled_unet_is_traced_once_for_all_numbers_of_rows_and_makes_the_same_images(
    unet: torch.nn.Module,
) -> None:
    traced: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        traced.append(1)
        return graph

    compiler = partial(torch.compile, backend=backend, fullgraph=True)
    plain, compiled = make_denoiser(unet, BUCKETS), make_denoiser(unet, replace(BUCKETS, compiler=compiler))

    for num_images in (1, 4, 7):
        for mine, theirs in zip(finish(compiled, *mixed(num_images)), finish(plain, *mixed(num_images)), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-5)

    assert len(traced) == 1


def test_with_one_number_of_rows_results_are_batch_invariant(unet: torch.nn.Module) -> None:
    denoiser = make_denoiser(unet, DenoisingOptions(sizes=(GPU_ROWS,)))
    (alone,) = finish(denoiser, start(5))
    assert torch.equal(finish(denoiser, *mixed(3), start(5), *mixed(4))[3], alone)
    assert not any(isinstance(module, FixedRowsLinear) for module in denoiser._unet.modules()), "nothing to fix"


def test_calibration_measures_the_buckets_and_an_adopted_one_is_the_same(unet: torch.nn.Module) -> None:
    denoiser = make_denoiser(unet, BUCKETS)
    found = denoiser.calibrate(8, 8, 60.0)
    assert found.padding.sizes == ROW_BUCKETS
    assert list(found.seconds) == list(range(2, 33))

    forwards: list[int] = []
    denoiser._unet.register_forward_pre_hook(lambda _, inputs: forwards.append(inputs[0].shape[0]))
    assert denoiser.calibrate(8, 8, 60.0, known=found) is found
    assert forwards == []


def test_forwards_that_need_preparing_are_all_taken_while_the_model_loads(unet: torch.nn.Module) -> None:
    found = make_denoiser(unet, BUCKETS).calibrate(8, 8, 60.0)
    recorder = Recorder()
    denoiser = make_denoiser(unet, replace(BUCKETS, record=recorder))
    denoiser.calibrate(8, 8, 60.0, known=found)
    assert recorder.num_recordings == len(ROW_BUCKETS)
    finish(denoiser, *mixed(5))
    assert recorder.num_recordings == len(ROW_BUCKETS)


def test_a_known_calibration_is_tested_first(unet: torch.nn.Module) -> None:
    found = make_denoiser(unet, DenoisingOptions()).calibrate(8, 8, 60.0)
    assert found.is_invariant

    denoiser = make_denoiser(unet, DenoisingOptions())
    forwards: list[int] = []
    denoiser._unet.register_forward_pre_hook(lambda _, inputs: forwards.append(inputs[0].shape[0]))
    assert denoiser.calibrate(8, 8, 60.0, known=found) is found
    assert forwards == [2, found.padding.most]


def test_the_options_follow_from_the_device_and_the_promise() -> None:
    gpu = torch.device("cuda")
    assert options_for(CPU, deterministic=True, graphs=True) == DenoisingOptions()
    assert not options_for(CPU, deterministic=False, graphs=False).needs_probe
    assert options_for(CPU, deterministic=True, graphs=True, compiles=True) == DenoisingOptions()
    assert options_for(gpu, deterministic=False, graphs=False) == BUCKETS
    assert options_for(gpu, deterministic=False, graphs=False, compiles=True) == replace(
        BUCKETS, compiler=compile_forward
    )
    assert options_for(gpu, deterministic=True, graphs=False).sizes == (GPU_ROWS,)


def test_attention_is_the_fused_one(unet: torch.nn.Module) -> None:
    processors = {type(processor) for processor in make_denoiser(unet, BUCKETS)._unet.attn_processors.values()}
    assert processors == {AttnProcessor2_0}
