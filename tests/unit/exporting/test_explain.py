import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.exporting.classifier import Classifier, Network
from app.exporting.explain import Explanation, explain
from app.exporting.networks import features_of

Make = Callable[..., Classifier]

SIDE = 96
SETTINGS = {"crop": SIDE, "resize": SIDE, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
# top, left, height and width of the patch that makes the class
PATCH = (8, 56, 28, 28)


def picture(with_patch: bool = True) -> torch.Tensor:
    """Grey noise, with a striped patch or without it."""
    pixels = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) * 0.05
    if with_patch:
        top, left, height, width = PATCH
        stripes = torch.arange(width).div(4, rounding_mode="floor").remainder(2) * 2.0 - 1
        pixels[:, top : top + height, left : left + width] = stripes * torch.tensor([1.0, 0.4, -1]).reshape(3, 1, 1)
    return pixels


def with_patch_as_class(made: Classifier, normalise: bool = False) -> Classifier:
    """Let class 1 be what the patch adds to the features, and the other classes nothing."""
    with torch.no_grad():
        present, absent = features_of(made.backbone, torch.stack([picture(), picture(False)]))
    weight = np.zeros_like(made.weight)
    weight[1] = (present - absent).numpy() / float((present - absent).norm())
    return Classifier(made.facts, made.backbone, weight, np.zeros_like(made.bias))


def ratio_in_patch(explained: Explanation) -> float:
    """Mean heat within the patch, divided by the mean heat outside."""
    top, left, height, width = PATCH
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top : top + height, left : left + width] = True
    return float(explained.heat[inside].mean() / max(explained.heat[~inside].mean(), 1e-6))


@pytest.mark.parametrize(
    ("name", "method", "least"),
    [
        ("test_resnet", "grad_cam", 1.5),
        ("test_efficientnet", "grad_cam", 1.5),
        ("test_resnet", "occlusion", 3),
        ("test_efficientnet", "occlusion", 3),
    ],
)
def test_the_heat_is_where_the_class_is(classifier: Make, name: str, method: Any, least: float) -> None:
    made = with_patch_as_class(classifier(name, preprocessing=SETTINGS))
    explained = explain(made, picture(), 1, method)
    assert explained.method == method
    assert ratio_in_patch(explained) > least
    assert explained.heat.max() == pytest.approx(1)


def test_another_class_gets_other_heat(classifier: Make) -> None:
    made = with_patch_as_class(classifier(preprocessing=SETTINGS))
    assert ratio_in_patch(explain(made, picture(), 0, "occlusion")) < 1


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_module_stays_as_it_was(classifier: Make, method: Any) -> None:
    made = classifier("test_efficientnet", preprocessing=SETTINGS)
    before = {name: tensor.clone() for name, tensor in made.backbone.state_dict().items()}
    state = torch.random.get_rng_state()
    explain(made, picture(), 2, method)
    for name, tensor in made.backbone.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(weights.grad is None and not weights.requires_grad for weights in made.backbone.parameters())
    assert not any(part._forward_hooks for part in made.backbone.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_picture_is_the_same_each_time(classifier: Make, method: Any) -> None:
    made = classifier(preprocessing=SETTINGS, normalise=True)
    first, second = (explain(made, picture(), 0, method) for _ in range(2))
    assert first.png == second.png
    decoded = Image.open(io.BytesIO(first.png))
    assert (decoded.format, decoded.size, decoded.mode) == ("PNG", (SIDE, SIDE), "RGB")


def test_a_network_of_tokens_is_explained_by_occlusion(classifier: Make) -> None:
    options = {"img_size": SIDE}
    made = classifier("test_vit", network=Network("timm", "test_vit", options), preprocessing=SETTINGS)
    assert explain(made, picture(), 1).method == "occlusion"
    with pytest.raises(ValueError, match="no convolution map"):
        explain(made, picture(), 1, "grad_cam")


def test_a_caller_without_gradients_gets_grad_cam_too(classifier: Make) -> None:
    made = classifier(preprocessing=SETTINGS)
    with torch.no_grad():
        inside = explain(made, picture(), 1)
    assert inside.method == "grad_cam"
    assert inside.png == explain(made, picture(), 1).png


def test_a_class_without_evidence_gets_the_picture_without_heat(classifier: Make) -> None:
    made = classifier(preprocessing=SETTINGS)
    flat = Classifier(made.facts, made.backbone, np.zeros_like(made.weight), made.bias)
    assert explain(flat, picture(), 1).heat.max() == 0


@pytest.mark.parametrize(("shape", "class_index"), [((3, SIDE, SIDE), 3), ((3, SIDE, SIDE), -1), ((1, 3, 8, 8), 0)])
def test_a_class_or_shape_that_is_none_is_refused(classifier: Make, shape: tuple[int, ...], class_index: int) -> None:
    with pytest.raises(ValueError, match="one of the classes"):
        explain(classifier(preprocessing=SETTINGS), torch.zeros(shape), class_index)
