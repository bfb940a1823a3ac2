"""A UNet's forward on the CPU that takes from before what depends on a row's prompt or timestep alone.

Keys and values of the prompts are projected once and handed in; what the residual blocks add for a timestep is kept in
a bounded cache. Both are the bytes that the layers compute in every forward. Handles no images and no requests. The
loader threads build forwards; the device thread runs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, ResnetBlockCondNorm2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.nn import functional

from app.engine.cache import ByteBoundedCache

# About 200 timesteps of Stable Diffusion v1.5 in float32, all thousand of the demo pack.
TIMESTEP_BYTES = 16 * 2**20

# From and to, in channels: the part of a layer in the rows of `KeptRows`.
Span = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class KeptRows:
    """What all layers of a UNet have computed of the rows of a forward, one layer behind the other.

    Attributes:
        values: Of the model's dtype.
        tokens: The vectors of a row; a layer's are stored together.

    Shapes:
        values: (R, N x `tokens`), N being the channels of all layers.
    """

    values: torch.Tensor
    tokens: int = 1

    def part(self, span: Span) -> torch.Tensor:
        """Return a layer's part, a view. **Shapes**: (R, `tokens`, E)."""
        start, stop = (self.tokens * channel for channel in span)
        return self.values[:, start:stop].view(len(self.values), self.tokens, -1)


class KeptTimesteps(nn.Module):
    """A `time_proj` that returns what all residual blocks add for a timestep, and computes that once."""

    def __init__(self, unet: Any, blocks: Sequence[Any], dtype: torch.dtype, max_bytes: int = TIMESTEP_BYTES) -> None:
        """Take the layers of a UNet, and give every block its part.

        Args:
            unet: With its own `time_proj` and `time_embedding`.
            blocks: Its `CpuResnetBlock`s.
            dtype: Of the UNet.
            max_bytes: Of all timesteps that are kept.
        """
        super().__init__()
        self.own, self._embedding, self._dtype = unet.time_proj, unet.time_embedding, dtype
        self._layers = tuple(block.time_emb_proj for block in blocks)
        _give_spans(blocks, "time_span", [_width(layer) for layer in self._layers])
        self._kept = ByteBoundedCache[float, torch.Tensor](max_bytes, lambda _timestep, row: row.nbytes)

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the kept rows. **Shapes**: (R,) to (R, N)."""
        wanted: list[float] = timesteps.tolist()
        rows = {timestep: self._kept.get(timestep) for timestep in wanted}
        if missing := [timestep for timestep, row in rows.items() if row is None]:
            for timestep, row in zip(missing, self._compute(timesteps.new_tensor(missing)), strict=True):
                rows[timestep] = row.clone()
                self._kept.put(timestep, row.clone())
        return torch.stack([row for timestep in wanted if (row := rows[timestep]) is not None])

    def _compute(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Run the layers as the UNet and its blocks do."""
        embedding = functional.silu(self._embedding(self.own(timesteps).to(self._dtype)))
        return torch.cat([layer(embedding) for layer in self._layers], dim=1)


class PassedTimesteps(nn.Module):
    """A `time_embedding` that hands on what `KeptTimesteps` returns."""

    def __init__(self, own: nn.Module) -> None:
        """Take the layer in whose place it is."""
        super().__init__()
        self.own = own

    def forward(self, rows: torch.Tensor, _condition: object = None) -> KeptRows:
        """Hand on. **Shapes**: (R, N)."""
        return KeptRows(rows)


class KeepingForward:
    """The forward of a UNet with optimized layers; of one with others it takes embeddings alone."""

    def __init__(self, unet: Any, dtype: torch.dtype, *, keeps: bool) -> None:
        """Number the layers of a UNet; its layers for timesteps are replaced in place.

        Args:
            unet: On any device; it may share blocks with others of the same architecture.
            dtype: Of the UNet.
            keeps: Whether anything is taken from before; the UNet's layers must be optimized ones, or nothing is.
        """
        self._unet, self._dtype = unet, dtype
        layers = list(unet.modules()) if keeps and isinstance(unet, nn.Module) and _is_plain(unet) else []
        self._text_layers = _text_layers(layers)
        if blocks := _timestep_blocks(layers):
            time_proj = KeptTimesteps(unet, blocks, dtype)
            unet.time_proj, unet.time_embedding = time_proj, PassedTimesteps(unet.time_embedding)

    @property
    def keeps_texts(self) -> bool:
        """Whether keys and values can be handed in."""
        return bool(self._text_layers)

    def project(self, embeds: torch.Tensor, rows: int) -> torch.Tensor:
        """Compute the keys and values of one prompt for all layers, as a forward of this many rows does.

        Shapes:
            embeds: (1, T, D); returns: (T x N,).
        """
        repeated = embeds.expand(rows, -1, -1).contiguous()
        return torch.cat([layer(repeated)[0].flatten() for layer in self._text_layers])

    def __call__(self, *inputs: Any) -> torch.Tensor:
        """Run the UNet over samples, timesteps and either embeddings or kept keys and values.

        Shapes:
            inputs: (R, C, h, w) float32, (R,) float32, and (R, T, D) or `KeptRows` of R rows.
            returns: (R, C, h, w) float32.
        """
        samples, timesteps, texts = inputs
        outputs: torch.Tensor = self._unet(
            samples.to(self._dtype), timesteps, encoder_hidden_states=texts, return_dict=False
        )[0]
        return outputs.float()


def restore_timesteps(unet: Any) -> None:
    """Undo what `KeepingForward` has replaced in a UNet, or in the one that it shares layers with."""
    for name in ("time_proj", "time_embedding"):
        layer = getattr(unet, name, None)
        if isinstance(layer, KeptTimesteps | PassedTimesteps):
            setattr(unet, name, layer.own)


def _is_plain(unet: Any) -> bool:
    """Return whether nothing but residual blocks uses the timestep, and nothing but attention the texts."""
    others = ("class_embedding", "add_embedding", "time_embed_act", "encoder_hid_proj", "position_net")
    return all(getattr(unet, name, None) is None for name in others)


def _text_layers(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the projections of texts, and give their blocks their parts; none where some layer is not optimized."""
    if any(isinstance(layer, Attention | Transformer2DModel) for layer in layers):
        return []
    blocks: list[Any] = [layer for layer in layers if hasattr(layer, "text_span")]
    projections = [block.attn2.projections for block in blocks]
    _give_spans(blocks, "text_span", [len(projection.weight) for projection in projections])
    return projections


def _timestep_blocks(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the residual blocks; none where one of them is not optimized, or uses no timestep."""
    blocks: list[Any] = [layer for layer in layers if hasattr(layer, "time_span")]
    others = any(isinstance(layer, ResnetBlock2D | ResnetBlockCondNorm2D) for layer in layers)
    return [] if others or any(block.time_emb_proj is None for block in blocks) else blocks


def _give_spans(blocks: Sequence[Any], name: str, widths: Sequence[int]) -> None:
    """Write to each block where its part is."""
    start = 0
    for block, width in zip(blocks, widths, strict=True):
        setattr(block, name, (start, start + width))
        start += width


def _width(layer: Any) -> int:
    """Return the results of a linear layer, which may be wrapped in a `FixedRowsLinear`."""
    return len(getattr(layer, "linear", layer).weight)
