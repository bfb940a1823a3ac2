"""Our probe on features kept once gives what the practical's loop gives, if its backbone stays in eval mode."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from app.training.linear_probe import OptimizerSettings, fit

NUM_CLASSES, NUM_IMAGES, BATCH_SIZE, EPOCHS, SEED = 3, 22, 4, 3, 11


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(NUM_IMAGES) % NUM_CLASSES
    pixels = torch.randn(NUM_IMAGES, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
    return TensorDataset(pixels, labels)


@pytest.fixture
def backbone() -> nn.Module:
    torch.manual_seed(3)
    model = resnet18(weights=None)
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model.eval()


def practical_loop(model: Any, images: TensorDataset, optimizer: OptimizerSettings, *, train_mode: bool) -> list:
    """The tutorial's `train_model` on the CPU; returns (loss, accuracy) of each epoch."""
    torch.manual_seed(SEED)
    model.fc = nn.Linear(model.fc.in_features, NUM_CLASSES)
    criterion = nn.CrossEntropyLoss()
    torch_optimizer = torch.optim.SGD(model.fc.parameters(), lr=optimizer.lr, momentum=optimizer.momentum)
    order = torch.Generator().manual_seed(SEED)
    epochs = []
    for _ in range(EPOCHS):
        model.train(train_mode)
        running_loss, running_corrects = 0.0, 0.0
        # What DataLoader(shuffle=True) draws; its RandomSampler draws a second, unused order at each epoch's end.
        sampler = torch.randperm(len(images), generator=order).tolist()
        for inputs, labels in DataLoader(images, batch_size=BATCH_SIZE, sampler=sampler):
            torch_optimizer.zero_grad()
            outputs = model(inputs)
            _, predictions = torch.max(outputs, 1)
            loss = criterion(outputs, labels)
            loss.backward()
            torch_optimizer.step()
            running_loss += loss.item() * inputs.size(0)
            running_corrects += torch.sum(predictions == labels.data).item()
        epochs.append((running_loss / len(images), running_corrects / len(images)))
    return epochs


def extract_features(backbone: nn.Module, images: TensorDataset) -> np.ndarray:
    fc, backbone.fc = backbone.fc, nn.Identity()
    with torch.inference_mode():
        features = backbone(images.tensors[0]).numpy().copy()
    backbone.fc = fc
    return features


@pytest.mark.parametrize("optimizer", [OptimizerSettings(), OptimizerSettings(lr=0.05, momentum=0.0)])
def test_probe_on_kept_features_equals_the_practicals_loop(
    backbone: nn.Module, images: TensorDataset, optimizer: OptimizerSettings
) -> None:
    features = extract_features(backbone, images)
    ours = fit(
        features, images.tensors[1].numpy(), None, None,
        num_classes=NUM_CLASSES, epochs=EPOCHS, batch_size=BATCH_SIZE, optimizer=optimizer, seed=SEED,
    )  # fmt: skip
    theirs = practical_loop(backbone, images, optimizer, train_mode=False)

    # The backbone runs here in batches of 22, there in batches of 4: its sums differ in the last bits.
    np.testing.assert_allclose(
        ours.probe.weight, backbone.get_parameter("fc.weight").detach().numpy(), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(ours.probe.bias, backbone.get_parameter("fc.bias").detach().numpy(), rtol=0, atol=1e-6)
    assert [metrics.train_loss for metrics in ours.epochs] == pytest.approx([loss for loss, _ in theirs], abs=1e-5)
    assert [metrics.train_accuracy for metrics in ours.epochs] == [accuracy for _, accuracy in theirs]


def test_the_tutorials_train_mode_lets_a_frozen_backbone_drift(backbone: nn.Module, images: TensorDataset) -> None:
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    features = extract_features(backbone, images)
    fit(features, images.tensors[1].numpy(), None, None, num_classes=NUM_CLASSES, epochs=EPOCHS, seed=SEED)
    ours_after = {name: value.clone() for name, value in backbone.named_buffers()}
    practical_loop(backbone, images, OptimizerSettings(), train_mode=True)
    theirs_after = dict(backbone.named_buffers())

    assert all(torch.equal(before[name], ours_after[name]) for name in before)
    drifted = {name for name in before if not torch.equal(before[name], theirs_after[name])}
    assert drifted == set(before)
    assert not np.allclose(extract_features(backbone.eval(), images), features, atol=1e-2)
