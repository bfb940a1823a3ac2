"""One step of any number of images with any noise schedulers, in one update.

Elementwise arithmetic in a fixed order, each operation rounded separately: a row's result is the same bytes alone and
in any batch. Draws an image's noise. Handles no requests and does not compute the coefficients. Runs on the device
thread.
"""

from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor


def scale_inputs(samples: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Scale the samples to the range of the model's inputs.

    Shapes:
        samples: (B, C, h, w).
        scales: (B,); `NoisePlan.input_scales` at each row's step.
        returns: (B, C, h, w).

    Source:
        diffusers `SchedulerMixin.scale_model_input`.
    """
    return samples * scales[:, None, None, None]


def advance(
    states: torch.Tensor, model_outputs: torch.Tensor, noises: torch.Tensor | None, coefficients: torch.Tensor
) -> torch.Tensor:
    """Advance every row by one step.

    Product and sum are two operations, because a fused one may round differently at a tensor's edge. The sum starts
    from +0, to which a column of zero coefficients adds nothing, not even a sign: so omitting the noise changes no
    bit.

    Args:
        states: The sample and the remembered tensors of each row.
        model_outputs: The model's guided output for each row's sample.
        noises: Fresh noise; any finite numbers, such as zeros, in a row that draws none. None where no row draws.
        coefficients: `NoisePlan.coefficients` at each row's step.

    Shapes:
        states: (B, 1 + H, C, h, w) float32.
        model_outputs, noises: (B, C, h, w).
        coefficients: (B, 1 + H, 3 + H) float32.
        returns: (B, 1 + H, C, h, w) float32.

    Source:
        diffusers' `step` of every scheduler in `NOISE_SCHEDULERS`, as a weighted sum.
    """
    sample, *remembered = states.unbind(1)
    advanced = torch.zeros_like(states)
    weights = coefficients[..., None, None, None].unbind(2)
    for weight, column in zip(weights, [sample, model_outputs, noises, *remembered], strict=True):
        if column is not None:
            advanced += weight * column[:, None]
    return advanced


def draw_noise(
    shape: torch.Size | Sequence[int], generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Draw the noise of one image in the dtype of the model: another dtype gives other numbers.

    Shapes:
        shape: C, h, w; returns: (C, h, w) float32.

    Source:
        diffusers `randn_tensor`, as `prepare_latents` and the noise schedulers call it.
    """
    noise: torch.Tensor = randn_tensor((1, *shape), generator=generator, device=device, dtype=dtype)
    return noise[0].float()
