"""CLIP's towers, optimized for a CPU: the same arithmetic as transformers' layers in fewer passes.

Queries, keys and values are one product; QuickGELU, x * sigmoid(1.702 x), is silu(1.702 x) / 1.702, whose factors are
folded into the weights around it. Handles no images, texts or requests. The loader thread calls `optimize_clip` once;
the layers run on the device thread.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from app.engine.kernels.cpu_layers import replace_if_equivalent

_QUICK_GELU_FACTOR = 1.702

_TRIAL_TOKENS = 7


class CpuClipLayer(nn.Module):
    """A `CLIPEncoderLayer`: attention, then two linear layers."""

    def __init__(self, layer: Any) -> None:
        """Copy the weights that are joined or scaled, and share the others with `layer`."""
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.norm1, self.norm2 = layer.layer_norm1, layer.layer_norm2
        self.weight = _fixed(torch.cat([projection.weight for projection in projections]))
        self.bias = _fixed(torch.cat([projection.bias for projection in projections]))
        self.out = attention.out_proj
        self._heads = attention.num_heads
        self.mlp = _QuickMlp(mlp) if isinstance(mlp.activation_fn, QuickGELUActivation) else mlp

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        is_causal: bool = False,
        **_: object,
    ) -> torch.Tensor:
        """Apply it.

        Shapes:
            hidden_states, returns: (B, T, D); attention_mask: (B, 1, T, T).

        Source:
            transformers `CLIPEncoderLayer` with `sdpa_attention_forward`.
        """
        joined = functional.linear(self.norm1(hidden_states), self.weight, self.bias)
        query, key, value = joined.view(*joined.shape[:2], 3, self._heads, -1).permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attention_mask, is_causal=is_causal and attention_mask is None
        )
        hidden = self.out(mixed.transpose(1, 2).flatten(2)).add_(hidden_states)
        outputs: torch.Tensor = self.mlp(self.norm2(hidden)).add_(hidden)
        return outputs


class _QuickMlp(nn.Module):
    """A `CLIPMLP` with QuickGELU."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.weight1, self.bias1 = (_fixed(part * _QUICK_GELU_FACTOR) for part in (mlp.fc1.weight, mlp.fc1.bias))
        self.weight2, self.bias2 = _fixed(mlp.fc2.weight / _QUICK_GELU_FACTOR), mlp.fc2.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = functional.silu(functional.linear(inputs, self.weight1, self.bias1), inplace=True)
        return functional.linear(hidden, self.weight2, self.bias2)


@torch.inference_mode()
def optimize_clip(model: Any) -> None:
    """Replace the layers of a `CLIPModel` on the CPU, in eval mode, by optimized ones.

    Each is compared with its original first; where the results differ, the original stays.
    """
    for tower in (model.vision_model, model.text_model):
        for index, layer in enumerate(tower.encoder.layers):
            if isinstance(layer, CLIPEncoderLayer):
                tower.encoder.layers[index] = replace_if_equivalent(CpuClipLayer, layer, _draw_inputs) or layer


def _draw_inputs(layer: Any) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, _TRIAL_TOKENS, layer.embed_dim, generator=generator)
    return [hidden.to(layer.layer_norm1.weight.dtype), None]


def _fixed(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
