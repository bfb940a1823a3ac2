"""Where in a picture a classifier sees a class: a heat map over the picture, as PNG.

Grad-CAM where the backbone has a last convolution map (timm's and torchvision's convolutional networks), occlusion
otherwise (CLIP and other transformers). Changes neither weights, gradients nor buffers of the module, hooks nothing
into it, and draws no random numbers: several threads may use one module. Runs on pool threads.

Source: Selvaraju et al., Grad-CAM, 2017 (arXiv 1610.02391); Zeiler and Fergus, Visualizing and Understanding
Convolutional Networks, 2014 (arXiv 1311.2901), section 4.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from app.exporting.classifier import Classifier
from app.exporting.networks import Probabilities, features_of
from app.exporting.overlay import overlay_png

Method = Literal["grad_cam", "occlusion"]
Heat = npt.NDArray[np.float32]

# Windows of occlusion: two cells of this grid wide, one cell apart.
GRID: Final = 8
_ROWS = 16


@dataclass(frozen=True, slots=True)
class Explanation:
    """A heat map.

    Attributes:
        png: The picture as the network got it (cropped), with the heat over it; (crop, crop) pixels.
        method: How the heat was computed.
        heat: (crop, crop), float32, 0 ... 1; all 0 where nothing speaks for the class.
    """

    png: bytes
    method: Method
    heat: Heat


def explain(
    classifier: Classifier, pixels: torch.Tensor, class_index: int, method: Method | None = None
) -> Explanation:
    """Show where in a picture the classifier sees a class.

    The score of a class is its logit minus the mean of all logits: a constant added to all logits changes no
    probability, so it must not change the heat either.

    Args:
        classifier: May be on any device.
        pixels: One picture, normalised.
        class_index: 0 ... K - 1.
        method: None: Grad-CAM where that is possible. Occlusion runs the backbone on 50 pictures.

    Shapes:
        pixels: (3, H, W), float32.

    Raises:
        ValueError: There is no such class, the shape is another one, or the backbone has no convolution map.
    """
    if pixels.ndim != 3 or not 0 <= class_index < len(classifier.facts.classes):
        raise ValueError("Explained are one picture of shape (3, H, W) and one of the classes.")
    module = Probabilities(classifier).eval()
    picture = pixels.detach().to(module.head.weight.device)[None]
    parts = None if method == "occlusion" else _split(classifier.backbone)
    convolution_map = None if parts is None else _run(parts[0], picture)
    if parts is None or convolution_map is None or not _is_map(classifier.backbone, convolution_map):
        if method == "grad_cam":
            raise ValueError("The backbone has no convolution map. Use occlusion.")
        chosen: Method = "occlusion"
        raw = _occlude(module, picture, class_index)
    else:
        chosen = "grad_cam"
        raw = _grad_cam(module, parts[1], convolution_map, class_index)
    heat = _scaled(raw, pixels.shape[-2:])
    return Explanation(overlay_png(pixels.detach().cpu().numpy(), heat, classifier.facts.preprocessing), chosen, heat)


_Part = Callable[[torch.Tensor], torch.Tensor]


def _split(backbone: Any) -> tuple[_Part, _Part] | None:
    """Return the functions from pixels to the last map and from the map to features; None for unknown networks."""
    if hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head"):  # timm
        return backbone.forward_features, lambda maps: backbone.forward_head(maps, pre_logits=True)
    if all(hasattr(backbone, name) for name in ("conv1", "bn1", "relu", "maxpool", "layer4", "avgpool")):  # torchvision
        return _resnet_map(backbone), lambda maps: torch.flatten(backbone.avgpool(maps), 1)
    return None


def _resnet_map(backbone: Any) -> _Part:
    """Return torchvision's `ResNet._forward_impl` up to `layer4`."""
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    layers = [getattr(backbone, name) for name in names]

    def run(pixels: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            pixels = layer(pixels)
        return pixels

    return run


def _is_map(backbone: Any, maps: torch.Tensor) -> bool:
    """Whether it is (1, C, h, w), with more than one place; tokens are (1, n, C), and Swin's maps (1, h, w, C)."""
    is_channels_first = getattr(backbone, "output_fmt", "NCHW") == "NCHW"
    return is_channels_first and maps.ndim == 4 and maps.shape[2] * maps.shape[3] > 1


@torch.no_grad()
def _run(part: _Part, pixels: torch.Tensor) -> torch.Tensor:
    return part(pixels)


def _score(module: Probabilities, features: torch.Tensor, class_index: int) -> torch.Tensor:
    """Return each row's score of the class, (N,)."""
    logits = module.logits(features)
    return logits[:, class_index] - logits.mean(dim=1)


def _grad_cam(module: Probabilities, pool: _Part, maps: torch.Tensor, class_index: int) -> torch.Tensor:
    """Weight each channel of the map by the mean gradient of the score; (h, w), >= 0."""
    with torch.enable_grad():
        leaf = maps.clone().requires_grad_()
        score = _score(module, pool(leaf), class_index).sum()
        [gradient] = torch.autograd.grad(score, [leaf])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1)[0].relu()


@torch.inference_mode()
def _occlude(module: Probabilities, picture: torch.Tensor, class_index: int) -> torch.Tensor:
    """Return by how much covering each cell of the grid lowers the score; (GRID, GRID), >= 0.

    A window is covered with zeros, the mean of the training pictures.
    """
    height, width = picture.shape[-2:]
    rows, columns = (np.linspace(0, side, GRID + 1).round().astype(int) for side in (height, width))
    windows = [(top, left) for top in range(GRID - 1) for left in range(GRID - 1)]
    covered = picture.repeat(len(windows) + 1, 1, 1, 1)
    for number, (top, left) in enumerate(windows, start=1):
        covered[number, :, rows[top] : rows[top + 2], columns[left] : columns[left + 2]] = 0
    scores = torch.cat(
        [_score(module, features_of(module.backbone, batch), class_index) for batch in torch.split(covered, _ROWS)]
    )
    heat, counts = torch.zeros(2, GRID, GRID, device=scores.device)
    for (top, left), score in zip(windows, scores[1:], strict=True):
        heat[top : top + 2, left : left + 2] += scores[0] - score
        counts[top : top + 2, left : left + 2] += 1
    mean_drop: torch.Tensor = heat / counts
    return mean_drop.relu()


def _scaled(raw: torch.Tensor, size: tuple[int, ...]) -> Heat:
    """Enlarge to the picture's size, and divide by the maximum."""
    large = functional.interpolate(raw[None, None], size=list(size), mode="bilinear", align_corners=False)[0, 0]
    maximum = large.max()
    heat: Heat = (large / maximum if maximum > 0 else torch.zeros_like(large)).cpu().float().numpy()
    return heat
