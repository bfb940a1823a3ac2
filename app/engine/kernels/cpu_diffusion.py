"""UNet and VAE of Stable Diffusion, optimized for a CPU: the same arithmetic as diffusers' layers in fewer passes.

With a few rows a CPU spends a third of a step's time on diffusers' generality: the weights of convolutions are
reordered in every forward, tensors are copied before additions, modules inspect the signatures of functions. In
bfloat16, which newer processors multiply many times as fast, two layers that are slow in torch are replaced (0034).
Handles no images or requests. The loader thread calls `optimize_diffusion` once; the layers run on the device thread.
"""

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.nn import functional

from app.engine.kernels.cpu_kept import KeptRows, Span
from app.engine.kernels.cpu_layers import CpuConv2d, CpuLinear, CpuPixelConv2d, replace_if_equivalent

# Below this number of pixels torch normalizes groups of channels_last pixels with a kernel that is four times slower in
# bfloat16 (`feature_map_threshold` of ATen's `group_norm_kernel.cpp`).
_FEW_PIXELS = 1024

# Small enough that all layers of Stable Diffusion v1.5 are compared in seconds.
_TRIAL_SIDE = 4
_TRIAL_TOKENS = 7


class CpuGroupNorm(nn.Module):
    """A `GroupNorm` in half precision that computes in float32 where that is faster; it is no less exact."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        """Copy the weights of `norm` in float32."""
        super().__init__()
        if norm.weight.dtype == torch.float32:
            raise TypeError("The layer is in float32 already.")
        self._groups, self._eps = norm.num_groups, norm.eps
        self._weight, self._bias = norm.weight.detach().float(), norm.bias.detach().float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply it. **Shapes**: (R, C, h, w), inputs and results."""
        is_small = inputs[0, 0].numel() < _FEW_PIXELS
        pixels = inputs.float() if is_small else inputs
        return functional.group_norm(pixels, self._groups, self._weight, self._bias, self._eps).to(inputs.dtype)


class CpuResnetBlock(nn.Module):
    """A `ResnetBlock2D` that overwrites its own intermediate results.

    Attributes:
        time_span: Its part of kept rows, see `KeepingForward`.
    """

    def __init__(self, block: ResnetBlock2D) -> None:
        """Share the layers of `block`."""
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut
        self.time_span: Span = (0, 0)

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor | KeptRows | None) -> torch.Tensor:
        """Apply it.

        Shapes:
            input_tensor: (R, C, h, w); temb: (R, E), or kept rows; returns: (R, D, h, w).
        """
        hidden = self.conv1(functional.silu(self.norm1(input_tensor), inplace=True))
        if isinstance(temb, KeptRows):
            hidden += temb.part(self.time_span)[:, 0, :, None, None]
        elif temb is not None:
            hidden += self.time_emb_proj(functional.silu(temb))[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden), inplace=True))
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        outputs: torch.Tensor = hidden.add_(shortcut)
        return outputs


class CpuTransformer(nn.Module):
    """A `Transformer2DModel` over pixels that computes queries, keys and values in one product."""

    def __init__(self, model: Transformer2DModel) -> None:
        """Share the layers of `model`."""
        super().__init__()
        self.norm, self.proj_in, self.proj_out = model.norm, model.proj_in, model.proj_out
        self.blocks = nn.ModuleList(_CpuTransformerBlock(block) for block in model.transformer_blocks)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | KeptRows, **_: object
    ) -> tuple[torch.Tensor]:
        """Apply it.

        Shapes:
            hidden_states, returns: (R, C, h, w); encoder_hidden_states: (R, T, D), or kept rows.
        """
        rows, channels, height, width = hidden_states.shape
        hidden = self.proj_in(self.norm(hidden_states)).permute(0, 2, 3, 1).reshape(rows, height * width, channels)
        for block in self.blocks:
            hidden = block(hidden, encoder_hidden_states)
        hidden = hidden.reshape(rows, height, width, channels).permute(0, 3, 1, 2)
        return (self.proj_out(hidden).add_(hidden_states),)


class _CpuTransformerBlock(nn.Module):
    """A `BasicTransformerBlock`: self-attention, cross-attention, a gated feed-forward layer.

    Attributes:
        text_span: Its part of kept keys and values, see `KeepingForward`.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attn1 = _CpuAttention(block.attn1, [block.attn1.to_q, block.attn1.to_k, block.attn1.to_v])
        self.attn2 = _CpuAttention(block.attn2, [block.attn2.to_k, block.attn2.to_v])
        self.query = CpuLinear(block.attn2.to_q.weight, block.attn2.to_q.bias)
        self.gate = _CpuGatedGelu(block.ff.net[0].proj)
        self.out = CpuLinear(block.ff.net[2].weight, block.ff.net[2].bias)
        self.text_span: Span = (0, 0)

    def forward(self, hidden: torch.Tensor, texts: torch.Tensor | KeptRows) -> torch.Tensor:
        query, key, value = self.attn1.project(self.norm1(hidden))
        hidden = self.attn1(query, key, value).add_(hidden)
        key, value = (
            texts.part(self.text_span).chunk(2, dim=-1) if isinstance(texts, KeptRows) else self.attn2.project(texts)
        )
        hidden = self.attn2(self.query(self.norm2(hidden)), key, value).add_(hidden)
        outputs: torch.Tensor = self.out(self.gate(self.norm3(hidden))).add_(hidden)
        return outputs


class _CpuGatedGelu(nn.Module):
    """The first half of the feed-forward layer; in bfloat16 oneDNN applies GELU and gate while it writes its output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.dtype != torch.bfloat16:
            outer, gate = functional.linear(inputs, self.weight, self.bias).chunk(2, dim=-1)
            return functional.gelu(gate).mul_(outer)
        (outer, gate), (outer_bias, gate_bias) = self.weight.chunk(2), self.bias.chunk(2)
        multiply = torch.ops.mkldnn._linear_pointwise
        gates = multiply(inputs, gate, gate_bias, "gelu", [], "none")  # "none": the exact GELU, not that by tanh
        outputs: torch.Tensor = multiply.binary(inputs, gates, outer, outer_bias, "mul")
        return outputs


class _CpuAttention(nn.Module):
    """The common part of self-attention and cross-attention: joined projections, and heads."""

    def __init__(self, attention: Any, projections: list[nn.Linear]) -> None:
        super().__init__()
        self._heads = attention.heads
        self._parts = len(projections)
        self.projections = CpuLinear(torch.cat([layer.weight for layer in projections]))
        self.out = CpuLinear(attention.to_out[0].weight, attention.to_out[0].bias)

    def project(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts: tuple[torch.Tensor, ...] = self.projections(inputs).chunk(self._parts, dim=-1)
        return parts

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.view(*part.shape[:2], self._heads, -1).transpose(1, 2) for part in (query, key, value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        outputs: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return outputs


@torch.inference_mode()
def optimize_diffusion(model: nn.Module) -> None:
    """Replace the layers of a model on the CPU, in eval mode, by optimized ones.

    Each is compared with its original first. Where the results differ, or the layer cannot be built from the original,
    the original stays: another architecture runs as in diffusers.
    """
    for name, layer in list(model.named_children()):
        optimize_diffusion(layer)
        if (optimized := _optimize_layer(layer)) is not None:
            setattr(model, name, optimized)


def _optimize_layer(layer: nn.Module) -> nn.Module | None:
    """Optimize one layer whose sublayers are optimized already; None where there is no replacement."""
    if isinstance(layer, nn.Conv2d):
        pixel_conv = replace_if_equivalent(CpuPixelConv2d, layer, _draw_inputs)
        return pixel_conv or replace_if_equivalent(CpuConv2d, layer, _draw_inputs)
    if isinstance(layer, nn.GroupNorm):
        return replace_if_equivalent(CpuGroupNorm, layer, _draw_inputs)
    if isinstance(layer, ResnetBlock2D):
        return replace_if_equivalent(CpuResnetBlock, layer, _draw_inputs)
    if isinstance(layer, Transformer2DModel):
        return replace_if_equivalent(CpuTransformer, layer, _draw_inputs, return_dict=False)
    return None


def _draw_inputs(layer: Any) -> list[torch.Tensor | None]:
    """Draw inputs of a layer, in the memory layout that it gets when it serves."""
    generator = torch.Generator().manual_seed(0)
    dtype = next(layer.parameters()).dtype

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    channels = layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.in_channels
    pixels = draw(2, channels, _TRIAL_SIDE, _TRIAL_SIDE).contiguous(memory_format=torch.channels_last)
    if isinstance(layer, Transformer2DModel):
        return [pixels, draw(2, _TRIAL_TOKENS, layer.transformer_blocks[0].attn2.to_k.in_features)]
    if isinstance(layer, ResnetBlock2D):
        return [pixels, None if layer.time_emb_proj is None else draw(2, layer.time_emb_proj.in_features)]
    return [pixels]
