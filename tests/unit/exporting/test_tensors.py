import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from app.exporting.classifier import Classifier, ModelFacts, Network
from app.exporting.networks import Probabilities, rebuild, side_by_side
from app.exporting.tensors import native_tensors, read_split, split_tensors, write_safetensors

Make = Callable[..., Classifier]


def probabilities(classifier: Classifier, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return Probabilities(classifier).eval()(pixels)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_the_native_layout_loads_in_the_librarys_own_network(classifier: Make, name: str) -> None:
    made = classifier(name)
    tensors = native_tensors(made)
    assert tensors is not None
    network = timm.create_model(name, num_classes=3).eval()
    network.load_state_dict(tensors, strict=True)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels).softmax(dim=1), probabilities(made, pixels))


def test_a_head_on_normalised_features_has_no_native_layout(classifier: Make) -> None:
    assert native_tensors(classifier(normalise=True)) is None


def test_a_network_that_the_library_does_not_have_has_no_native_layout(classifier: Make) -> None:
    assert native_tensors(classifier(network=Network("timm", "no_such_network"))) is None


def test_a_backbone_with_a_layer_between_features_and_head_has_no_native_layout(classifier: Make) -> None:
    class Doubled(type(timm.create_model("test_resnet", num_classes=0))):  # type: ignore[misc]
        """Has the same tensors, but is another function than features with a last layer."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.fc(self.forward_head(self.forward_features(pixels), pre_logits=True)) * 2

    backbone = timm.create_model("test_resnet", num_classes=0).eval()
    backbone.__class__ = Doubled
    assert native_tensors(classifier(backbone=backbone)) is None


def test_a_file_gives_the_same_probabilities_again(classifier: Make, tmp_path: Path) -> None:
    made = classifier(normalise=True)
    write_safetensors(made, tmp_path / "a.safetensors")
    [tensors], head = read_split(tmp_path / "a.safetensors", made.facts)
    again = Classifier(made.facts, rebuild(made.facts.network, tensors), head.weight, head.bias)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(probabilities(again, pixels), probabilities(made, pixels))


def test_a_file_names_labels_architecture_and_preprocessing(classifier: Make, tmp_path: Path) -> None:
    made = classifier(classes=("fuchs", "ثعلب\n\"'", "\u202e"))
    write_safetensors(made, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        described = json.loads(file.metadata()["classifier"])
        names = set(file.keys())
    assert described["labels"] == list(made.facts.classes)
    assert described["architecture"] == {"library": "timm", "name": "test_resnet", "options": {}}
    assert described["preprocessing"] == made.facts.preprocessing
    assert {"head.weight", "head.bias", "backbone.conv1.0.weight"} <= names


def test_equal_classifiers_give_equal_bytes(classifier: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_safetensors(classifier(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_that_share_memory_are_written_apart(classifier: Make) -> None:
    tensors = split_tensors(classifier())
    pointers = {tensor.data_ptr() for tensor in tensors.values()}
    assert len(pointers) == len(tensors)


def test_a_backbone_in_training_mode_is_refused(classifier: Make) -> None:
    made = classifier()
    with pytest.raises(ValueError, match="eval mode"):
        Classifier(made.facts, nn.Identity().train(), made.weight, made.bias)


def test_a_head_of_another_shape_is_refused(classifier: Make) -> None:
    made = classifier()
    with pytest.raises(ValueError, match="shape"):
        Classifier(made.facts, made.backbone, made.weight[:2], made.bias)


def test_a_name_that_fits_in_no_file_is_refused(classifier: Make) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        classifier(classes=("a", "\ud800"))


def test_a_file_of_several_backbones_gives_the_same_probabilities_again(combined: Make, tmp_path: Path) -> None:
    made = combined()
    write_safetensors(made, tmp_path / "a.safetensors")
    facts = ModelFacts.from_json(json.loads(json.dumps(made.facts.to_json())))
    assert facts == made.facts
    tensors, head = read_split(tmp_path / "a.safetensors", facts)
    pairs = zip(facts.parts, tensors, strict=True)
    backbone = side_by_side([rebuild(part.network, weights) for part, weights in pairs])
    again = Classifier(facts, backbone, head.weight, head.bias)
    noise = torch.Generator().manual_seed(1)
    pixels = [torch.randn(2, 3, side, side, generator=noise) for side in (32, 40)]
    with torch.inference_mode():
        expected = Probabilities(made).eval()(*pixels)
        torch.testing.assert_close(Probabilities(again).eval()(*pixels), expected)
        rows = [functional.normalize(part(given)) for part, given in zip(made.backbone.parts, pixels, strict=True)]  # type: ignore[arg-type]
        by_hand = torch.cat(rows, dim=1) @ torch.from_numpy(made.weight).T
        torch.testing.assert_close(expected, by_hand.softmax(dim=1))


def test_several_backbones_have_no_native_layout(combined: Make) -> None:
    assert native_tensors(combined()) is None


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b.c"), ("a", "")])
def test_names_that_would_mix_tensors_are_refused(combined: Make, names: tuple[str, str]) -> None:
    parts = tuple(replace(part, name=name) for part, name in zip(combined().facts.parts, names, strict=True))
    with pytest.raises(ValueError, match="name of its own"):
        combined(parts=parts)
