"""Our classifier and backbone against torchvision called directly, with its own transforms.

ResNet50 runs in its full size with random weights, as `sd15` serves it. Tolerance: 5e-5 on probabilities and 1e-4
relative on features, alone and in a batch: BatchNorm is part of the convolutions, and sums come in another order.
"""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from app.engine.kernels.cpu_resnet import CpuResNet, optimize_resnet
from app.engine.request import EngineRequest
from app.engine.resnet import BackboneRunner, ClassifierRunner, ClassifyPayload, FeaturePayload
from app.errors import InferenceFailed
from app.modelpacks.loading import BackboneComponents, ClassifierComponents, load_backbone, load_classifier
from app.modelpacks.pack import ModelPack, read_pack
from testing.tiny import CLASSES, write_manifest
from tests.parity.conftest import CPU

IMAGES = [
    Image.effect_mandelbrot((500, 333), (-2, -1.5, 1, 1.5), 40).convert("RGB"),
    Image.linear_gradient("L").convert("RGB").resize((200, 640)),
    Image.new("RGB", (1, 1), "orange"),
]


@pytest.fixture(scope="module")
def resnet50_pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    """The `sd15` pack's classifier and backbone, with random weights."""
    folder: Path = tmp_path_factory.mktemp("packs") / "resnets"
    for part, architecture, weights in [
        ("classifier", "resnet50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("backbone", "resnet18", "ResNet18_Weights.IMAGENET1K_V1"),
    ]:
        (folder / part).mkdir(parents=True)
        save_file(random_state(architecture), folder / part / "model.safetensors")
        config = {"architecture": architecture, "classes": {"weights": weights}}
        (folder / part / "config.json").write_text(json.dumps(config))
    write_manifest(folder)
    return read_pack(folder)


def random_state(architecture: str) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model(architecture, weights=None)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics that a wrong mode would miss
                module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def classifier_payloads(parts: ClassifierComponents, images: Sequence[Image.Image]) -> list[ClassifyPayload]:
    return [ClassifyPayload(parts.preprocess(image)) for image in images]


def feature_payloads(parts: BackboneComponents, images: Sequence[Image.Image]) -> list[FeaturePayload]:
    return [FeaturePayload(parts.preprocess(image)) for image in images]


def run(runner: ClassifierRunner | BackboneRunner, payloads: Sequence[object]) -> list[np.ndarray]:
    """Run all payloads in one step."""
    requests = [EngineRequest("resnet", payload) for payload in payloads]
    for request in requests:
        runner.prepare(request)
    runner.step(requests)
    assert all(runner.is_finished(request) for request in requests)
    results = [runner.finish(request) for request in requests]
    return [result if isinstance(result, np.ndarray) else result.probabilities for result in results]


@torch.inference_mode()
def test_the_full_size_resnet50_classifies_as_torchvision_does(resnet50_pack: ModelPack) -> None:
    classifier = load_classifier(resnet50_pack, CPU)
    weights = ResNet50_Weights.IMAGENET1K_V2
    upstream = torchvision.models.resnet50(weights=None)
    upstream.load_state_dict(load_file(resnet50_pack.part("classifier") / "model.safetensors"))
    upstream.eval()
    expected = [upstream(weights.transforms()(image)[None])[0].softmax(dim=0).numpy() for image in IMAGES]

    runner = ClassifierRunner(model=classifier.model, device=CPU)
    [alone] = run(runner, classifier_payloads(classifier, IMAGES[:1]))
    np.testing.assert_allclose(alone, expected[0], rtol=0, atol=5e-5)
    for ours, theirs in zip(run(runner, classifier_payloads(classifier, IMAGES)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-5)
    assert classifier.classes == tuple(weights.meta["categories"])
    assert sum(parameter.numel() for parameter in classifier.model.parameters()) == 25_557_032
    assert (classifier.preprocessing.resize, classifier.preprocessing.crop) == (232, 224)


@torch.inference_mode()
def test_the_backbone_returns_the_input_of_fc(resnet50_pack: ModelPack) -> None:
    backbone = load_backbone(resnet50_pack, CPU)
    upstream = torchvision.models.resnet18(weights=None)
    upstream.load_state_dict(load_file(resnet50_pack.part("backbone") / "model.safetensors"))
    upstream.eval()
    seen: list[torch.Tensor] = []
    upstream.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].clone()))
    for image in IMAGES:
        upstream(ResNet18_Weights.IMAGENET1K_V1.transforms()(image)[None])

    runner = BackboneRunner(model=backbone.model, device=CPU)
    [alone] = run(runner, feature_payloads(backbone, IMAGES[:1]))
    assert alone.dtype == np.float32
    assert alone.shape == (backbone.num_features,) == (512,)
    np.testing.assert_allclose(alone, seen[0].numpy(), rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(run(runner, feature_payloads(backbone, IMAGES)), seen, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_optimized_resnet_returns_what_torchvisions_returns(architecture: str, batch: int) -> None:
    model = torchvision.models.get_model(architecture, weights=None).eval()
    model.load_state_dict(random_state(architecture))
    optimized = optimize_resnet(model)
    images = torch.randn(batch, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    assert isinstance(optimized, CpuResNet)
    ours, theirs = optimized(images), model(images)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("network", ["another norm", "another kind", "no numbers"])
def test_another_network_stays_as_it_is(network: str) -> None:
    if network == "another kind":
        model = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    else:
        norm = partial(torch.nn.GroupNorm, 8) if network == "another norm" else None
        model = torchvision.models.resnet18(weights=None, norm_layer=norm).eval()
        if network == "no numbers":
            model.fc.bias.data.fill_(math.nan)
    assert optimize_resnet(model) is model


def test_a_pack_without_a_backbone_uses_its_classifier(tiny_pack: ModelPack) -> None:
    backbone, classifier = load_backbone(tiny_pack, CPU), load_classifier(tiny_pack, CPU)
    assert classifier.classes == CLASSES
    assert backbone.preprocessing == classifier.preprocessing

    [features] = run(BackboneRunner(model=backbone.model, device=CPU), feature_payloads(backbone, IMAGES[:1]))
    [probabilities] = run(
        ClassifierRunner(model=classifier.model, device=CPU),
        classifier_payloads(classifier, IMAGES[:1]),
    )
    with torch.inference_mode():
        expected = classifier.model.fc(torch.from_numpy(features)).softmax(dim=0).numpy()
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)


def test_batchnorm_does_not_drift(tiny_pack: ModelPack) -> None:
    backbone = load_backbone(tiny_pack, CPU)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    backbone.model.train()
    runner = BackboneRunner(model=backbone.model, device=CPU)
    run(runner, feature_payloads(backbone, IMAGES))
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_answer_that_is_not_a_number_is_an_error(tiny_pack: ModelPack) -> None:
    classifier, backbone = load_classifier(tiny_pack, CPU), load_backbone(tiny_pack, CPU)
    for model in (classifier.model, backbone.model):
        model.conv1.weight.data.fill_(math.nan)  # type: ignore[union-attr]
    with pytest.raises(InferenceFailed):
        run(
            ClassifierRunner(model=classifier.model, device=CPU),
            classifier_payloads(classifier, IMAGES[:1]),
        )
    with pytest.raises(InferenceFailed):
        run(
            BackboneRunner(model=backbone.model, device=CPU),
            feature_payloads(backbone, IMAGES[:1]),
        )
