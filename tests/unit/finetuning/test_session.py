"""What a fine-tuning computes: beside the linear probe, beside a plain loop, and what it leaves unchanged."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from app.finetuning.errors import FineTuneDiverged
from app.finetuning.network import first_head, load_backbone
from app.finetuning.plan import FineTunePlan
from app.finetuning.session import FineTune
from app.modelpacks.preprocessing import Preprocessing
from app.training.linear_probe import OptimizerSettings, fit
from testing.fine_tuning import decode, make_plan, make_session, run_epoch

PLAIN: dict[str, Any] = {"augment": None, "warmup_epochs": 0, "schedule": "constant", "weight_decay": 0.0}


def trained(plan: FineTunePlan, pool: ThreadPoolExecutor) -> FineTune:
    session = make_session(plan, pool)
    for _ in range(plan.settings.epochs):
        run_epoch(session)
    return session


def pixels_of(plan: FineTunePlan) -> tuple[torch.Tensor, torch.Tensor]:
    transform = Preprocessing.from_config(plan.preprocessing).transform()
    pixels = torch.stack([transform(decode(example.path.read_bytes())) for example in plan.train])
    return pixels, torch.tensor([example.label for example in plan.train])


def test_the_head_alone_is_the_linear_probe(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    plan = make_plan(tmp_path, mode="head", epochs=5, seed=3, **PLAIN)
    pixels, labels = pixels_of(plan)
    with torch.inference_mode():
        features = load_backbone(plan.backbone, plan.weights)(pixels).numpy()
    expected = fit(
        features, labels.numpy(), None, None, num_classes=2, epochs=5, batch_size=4,
        optimizer=OptimizerSettings(lr=0.05), seed=3,
    )  # fmt: skip

    session = trained(plan, pool)
    fc = session.trainer.classifier.fc
    np.testing.assert_allclose(fc.weight.detach().numpy(), expected.probe.weight, atol=1e-5)
    np.testing.assert_allclose(fc.bias.detach().numpy(), expected.probe.bias, atol=1e-5)
    for ours, theirs in zip(session.progress.epochs, expected.epochs, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert ours.train_accuracy == theirs.train_accuracy
    assert expected.epochs[-1].train_loss < 0.8 * expected.epochs[0].train_loss


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_all_layers_train_as_in_a_plain_loop(tmp_path: Path, pool: ThreadPoolExecutor, optimizer: str) -> None:
    lr = {"sgd": 0.02, "adamw": 0.002}[optimizer]
    settings: dict[str, Any] = {
        "augment": None,
        "label_smoothing": 0.1,
        "weight_decay": 0.01,
        "lr": lr,
        "optimizer": optimizer,
    }
    plan = make_plan(tmp_path, mode="all", seed=5, **settings)
    backbone, fc = plain_loop(plan, torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW)

    session = trained(plan, pool)
    theirs = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    theirs |= {"fc.weight": fc.weight, "fc.bias": fc.bias}
    for name, ours in session.trainer.classifier.state_dict().items():
        torch.testing.assert_close(ours, theirs[name].detach(), atol=1e-5, rtol=0, msg=name)
    first = load_file(plan.weights)["conv_stem.weight"]
    assert not torch.allclose(theirs["backbone.conv_stem.weight"], first, atol=1e-4)


def plain_loop(plan: FineTunePlan, optimizer_class: type) -> tuple[torch.nn.Module, torch.nn.Linear]:
    """Fine-tune as people write it: three epochs, a warm-up of one, cosine by step, the backbone ten times slower."""
    pixels, labels = pixels_of(plan)
    backbone = load_backbone(plan.backbone, plan.weights).eval()
    torch.manual_seed(5)
    fc = torch.nn.Linear(backbone(pixels[:1]).shape[1], 2)
    lr, parts = plan.settings.lr, [*backbone.parameters()]
    groups = [
        {"params": [p for p in parts if p.ndim > 1], "lr": lr / 10, "weight_decay": 0.01},
        {"params": [p for p in parts if p.ndim == 1], "lr": lr / 10, "weight_decay": 0.0},
        {"params": [fc.weight], "lr": lr, "weight_decay": 0.01},
        {"params": [fc.bias], "lr": lr, "weight_decay": 0.0},
    ]
    momentum = {"momentum": 0.9} if optimizer_class is torch.optim.SGD else {}
    optimizer = optimizer_class(groups, **momentum)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / 4 if step < 4 else (1 + math.cos(math.pi * (step - 4) / 8)) / 2
    )
    order = torch.Generator().manual_seed(5)
    for _ in range(3):
        for batch in torch.randperm(14, generator=order).split(4):
            loss = functional.cross_entropy(fc(backbone(pixels[batch])), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return backbone, fc


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"])
def test_the_last_block_changes_and_nothing_else(tmp_path: Path, pool: ThreadPoolExecutor, architecture: str) -> None:
    plan = make_plan(tmp_path, architecture=architecture, epochs=2, optimizer="adamw", lr=0.001)
    before = load_file(plan.weights)
    after = trained(plan, pool).trainer.classifier.backbone.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    parameters = {name for name, _ in load_backbone(plan.backbone, plan.weights).named_parameters()}
    blocks = {
        "test_efficientnet": ("blocks.4.", "conv_head.", "bn2."),
        "test_resnet": ("layer4.",),
        "test_vit": ("blocks.5.", "norm."),
        "test_convnext": ("stages.3.", "head.norm."),
    }[architecture]
    assert {name for name in parameters if name.startswith(blocks)} == changed


def test_statistics_of_batch_normalisation_stay_when_all_is_trained(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    plan = make_plan(tmp_path, mode="all", epochs=1)
    before = load_file(plan.weights)
    after = trained(plan, pool).trainer.classifier.backbone.state_dict()
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert all(not torch.equal(before[name], after[name]) for name in before if name not in statistics)


def test_averaged_weights_are_validated_and_kept(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    plan = make_plan(tmp_path, mode="head", epochs=1, ema_decay=0.5, **PLAIN)
    session = make_session(plan, pool)
    average = session.trainer.classifier.fc.weight.detach().clone()
    session.begin_epoch(1)
    for step in range(1, 5):
        session.step()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * session.trainer.classifier.fc.weight.detach()
    while not session.is_epoch_done:
        session.step()
    metrics = session.end_epoch()

    kept = session.trainer.kept_weights()
    torch.testing.assert_close(kept["fc.weight"], average)
    assert not torch.allclose(kept["fc.weight"], session.trainer.classifier.fc.weight)
    transform = Preprocessing.from_config(plan.preprocessing).transform()
    pixels = torch.stack([transform(decode(one.path.read_bytes())) for one in plan.validation])
    with torch.inference_mode():
        features = load_backbone(plan.backbone, plan.weights)(pixels)
        logits = functional.linear(features, kept["fc.weight"], kept["fc.bias"])
    labels = torch.tensor([one.label for one in plan.validation])
    assert metrics.validation_loss == pytest.approx(float(functional.cross_entropy(logits, labels)), abs=1e-5)


def test_without_validation_pictures_there_are_no_such_metrics(plan: FineTunePlan, pool: ThreadPoolExecutor) -> None:
    session = make_session(replace(plan, validation=()), pool)
    run_epoch(session)
    [metrics] = session.progress.epochs
    assert (metrics.validation_loss, metrics.validation_accuracy) == (None, None)
    assert session.progress.kept_epoch == 1


def test_the_head_starts_as_a_given_one(plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    fc = first_head(256, 2, seed=99)
    save_file({"fc.weight": fc.weight.detach(), "fc.bias": fc.bias.detach()}, tmp_path / "head.safetensors")
    session = make_session(replace(plan, head=tmp_path / "head.safetensors", head_sha256="one"), pool)
    assert torch.equal(session.trainer.classifier.fc.weight, fc.weight)


@pytest.mark.parametrize("lr", [1e4, 1e30])
def test_a_loss_far_above_guessing_or_not_finite_is_refused(
    tmp_path: Path, pool: ThreadPoolExecutor, lr: float
) -> None:
    session = make_session(make_plan(tmp_path, mode="all", lr=lr, warmup_epochs=0), pool)
    with pytest.raises(FineTuneDiverged) as caught:
        run_epoch(session)
    assert caught.value.code == "diverged"
