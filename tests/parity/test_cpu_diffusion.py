"""Layers optimized for the CPU against diffusers' own: the same numbers, and where they would differ, diffusers' stay.

Tolerance in float32: 1e-5 of the largest number; on the processors that this was written on they are the same bytes. In
bfloat16 the reference is diffusers in float32: optimized layers are no farther from it than the originals.
"""

import copy
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from app.engine.kernels.cpu_diffusion import CpuGroupNorm, CpuResnetBlock, CpuTransformer, optimize_diffusion
from app.engine.kernels.cpu_layers import CpuConv2d, CpuPixelConv2d
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack
from tests.parity.conftest import CPU

TOLERANCE = 1e-5
CHANCE = 1.25  # of two ways to round the same sums, one is that much worse at times
HALF = torch.bfloat16

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the originals stay on a processor without bfloat16"
)


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)


@pytest.fixture(scope="module")
def half_components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, HALF)


def optimized(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    optimize_diffusion(other)
    return other


def kinds(model: nn.Module) -> set[type[nn.Module]]:
    return {type(part) for part in model.modules()}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_alike(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("size", [(8, 8), (16, 8), (6, 10)])
def test_an_optimized_unet_predicts_what_the_original_predicts(
    components: DiffusionComponents, rows: int, size: tuple[int, int]
) -> None:
    unet: Any = components.unet
    inputs = draw(rows, unet.config.in_channels, *size), torch.linspace(981, 1, rows)
    texts = draw(rows, 77, unet.config.cross_attention_dim)
    ours, theirs = (
        model(*(part.clone() for part in inputs), encoder_hidden_states=texts, return_dict=False)[0]
        for model in (optimized(unet), unet)
    )
    assert_alike(ours, theirs)


@torch.inference_mode()
def test_an_optimized_decoder_decodes_as_the_original_does(components: DiffusionComponents) -> None:
    latents = draw(1, components.vae.config.latent_channels, 8, 12)
    assert_alike(optimized(components.vae.decoder)(latents), components.vae.decoder(latents))


def test_every_block_of_stable_diffusion_is_optimized(components: DiffusionComponents) -> None:
    unet, decoder = optimized(components.unet), optimized(components.vae.decoder)
    assert kinds(unet) >= {CpuConv2d, CpuPixelConv2d, CpuResnetBlock, CpuTransformer}
    assert not (kinds(unet) | kinds(decoder)) & {nn.Conv2d, ResnetBlock2D, Transformer2DModel}


@needs_bfloat16
def test_every_block_of_stable_diffusion_is_optimized_in_bfloat16_too(half_components: DiffusionComponents) -> None:
    unet, decoder = optimized(half_components.unet), optimized(half_components.vae.decoder)
    assert kinds(unet) >= {CpuConv2d, CpuPixelConv2d, CpuGroupNorm, CpuResnetBlock, CpuTransformer}
    originals = {nn.Conv2d, nn.GroupNorm, ResnetBlock2D, Transformer2DModel}
    assert not (kinds(unet) | kinds(decoder)) & originals


def assert_no_farther(ours: torch.Tensor, theirs: torch.Tensor, truth: torch.Tensor) -> None:
    """Ours, in bfloat16, is as near to float32 as theirs."""
    assert ours.dtype == theirs.dtype == HALF
    off_ours, off_theirs = ((half.float() - truth).pow(2).mean().sqrt() for half in (ours, theirs))
    assert 0 < off_ours <= CHANCE * off_theirs


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("size", [(8, 8), (16, 8), (32, 32)])
def test_a_unet_optimized_in_bfloat16_is_as_near_to_float32_as_the_original(
    components: DiffusionComponents, half_components: DiffusionComponents, rows: int, size: tuple[int, int]
) -> None:
    config: Any = components.unet.config
    samples, timesteps = draw(rows, config.in_channels, *size).to(HALF), torch.linspace(981, 1, rows)
    texts = draw(rows, 77, config.cross_attention_dim).to(HALF)

    def predict(unet: Any, dtype: torch.dtype) -> torch.Tensor:
        return unet(samples.to(dtype), timesteps, encoder_hidden_states=texts.to(dtype), return_dict=False)[0]

    ours, theirs = (predict(unet, HALF) for unet in (optimized(half_components.unet), half_components.unet))
    assert_no_farther(ours, theirs, predict(components.unet, torch.float32))


@torch.inference_mode()
def test_a_decoder_optimized_in_bfloat16_is_as_near_to_float32_as_the_original(
    components: DiffusionComponents, half_components: DiffusionComponents
) -> None:
    latents = draw(1, components.vae.config.latent_channels, 8, 12).to(HALF)
    original = half_components.vae.decoder
    assert_no_farther(optimized(original)(latents), original(latents), components.vae.decoder(latents.float()))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("side", [4, 31, 32])
def test_groups_are_normalized_in_float32_and_rounded_once(dtype: torch.dtype, side: int) -> None:
    norm = nn.GroupNorm(4, 24).eval().to(dtype)
    pixels = draw(2, 24, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
    outputs = CpuGroupNorm(norm)(pixels)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    truth = copy.deepcopy(norm).float()(pixels.float())
    assert outputs.dtype == dtype
    assert (outputs.float() - truth).abs().max() <= torch.finfo(dtype).eps * truth.abs().max()


@torch.inference_mode()
def test_a_convolution_of_single_pixels_is_one_product_and_stays_in_channels_last() -> None:
    conv = nn.Conv2d(12, 20, 1).eval()
    inputs = draw(3, 12, 6, 4).contiguous(memory_format=torch.channels_last)
    outputs = CpuPixelConv2d(conv)(inputs)
    assert_alike(outputs, conv(inputs))
    assert outputs.is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"groups": 2}])
def test_other_convolutions_of_single_pixels_are_left_to_onednn(options: dict[str, int]) -> None:
    model = nn.Sequential(nn.Conv2d(12, 20, 1, **options)).eval()
    other, inputs = optimized(model), draw(3, 12, 6, 4)
    assert type(other[0]) is CpuConv2d
    assert_alike(other(inputs), model(inputs))


def test_optimizing_twice_changes_nothing(components: DiffusionComponents) -> None:
    unet = optimized(components.unet)
    before = list(unet.modules())
    optimize_diffusion(unet)
    assert list(unet.modules()) == before


@torch.inference_mode()
@pytest.mark.parametrize("part", ["resnet", "transformer"])
def test_an_optimized_block_leaves_its_inputs_alone(part: str) -> None:
    block: nn.Module = (
        ResnetBlock2D(in_channels=64, temb_channels=8)
        if part == "resnet"
        else Transformer2DModel(2, 16, 32, cross_attention_dim=8)
    )
    layer = optimized(nn.Sequential(block.eval())).get_submodule("0")
    assert isinstance(layer, CpuResnetBlock | CpuTransformer)
    inputs = [draw(2, 64 if part == "resnet" else 32, 4, 4), draw(2, 8) if part == "resnet" else draw(2, 7, 8)]
    before = [tensor.clone() for tensor in inputs]
    layer(*inputs)
    assert all(torch.equal(tensor, copied) for tensor, copied in zip(inputs, before, strict=True))


@pytest.mark.parametrize(
    "block",
    [
        lambda: ResnetBlock2D(in_channels=64, temb_channels=8, output_scale_factor=2.0),
        lambda: ResnetBlock2D(in_channels=64, temb_channels=8, time_embedding_norm="scale_shift"),
        lambda: ResnetBlock2D(in_channels=64, temb_channels=8, non_linearity="mish"),
        lambda: ResnetBlock2D(in_channels=64, temb_channels=8, skip_time_act=True),
        lambda: ResnetBlock2D(in_channels=64, temb_channels=8, up=True),
        lambda: Transformer2DModel(2, 16, 32, cross_attention_dim=8, use_linear_projection=True),
        lambda: Transformer2DModel(2, 16, 32, cross_attention_dim=8, activation_fn="gelu"),
        lambda: Transformer2DModel(2, 16, 32, cross_attention_dim=8, attention_bias=True),
        lambda: Transformer2DModel(2, 16, 32, cross_attention_dim=8, only_cross_attention=True),
        lambda: Transformer2DModel(2, 16, 32),
    ],
)
def test_a_block_of_another_architecture_stays_the_original(block: Any) -> None:
    torch.manual_seed(0)
    original = block().eval()
    assert type(optimized(nn.Sequential(original)).get_submodule("0")) is type(original)


def test_layers_of_another_dtype_are_optimized_in_it() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1)).eval().to(torch.bfloat16)
    other = optimized(model)
    pixels = draw(2, 4, 6, 6).to(torch.bfloat16)
    with torch.inference_mode():
        ours, theirs = other(pixels), model(pixels)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert (ours - theirs).abs().max() <= torch.finfo(torch.bfloat16).eps * theirs.abs().max()
