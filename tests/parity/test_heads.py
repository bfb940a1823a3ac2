"""Our heads equal those of scikit-learn and of plain PyTorch loops that share no code with them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from app.training.heads import fit_head
from app.training.probe import LinearProbe, logits, predict
from app.training.rows import Rows, ScalingName
from app.training.settings import HeadSettings

SEED, EPOCHS, BATCH_SIZE = 7, 9, 8


def noisy(num_classes: int) -> Rows:
    random = np.random.default_rng(1)
    labels = np.arange(90) % num_classes
    features = random.normal(size=(90, 24)) * 2 + np.eye(num_classes, 24)[labels] * 3 + 1
    return Rows(features.astype(np.float32), labels)


def plain_loop(rows: Rows, num_classes: int, settings: HeadSettings) -> tuple[nn.Linear, list[float]]:
    """A loop as people write it: DataLoader, an optimizer and a scheduler of torch; returns the epochs' losses."""
    torch.manual_seed(SEED)
    fc = nn.Linear(24, num_classes)
    if settings.solver == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            fc.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            fc.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    schedulers = {
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS),
    }
    scheduler = schedulers[settings.schedule]()
    weight = None
    if settings.class_weights == "balanced":
        sizes = np.bincount(rows.labels)
        weight = torch.tensor(len(rows) / (num_classes * sizes), dtype=torch.float32)
    criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=settings.label_smoothing)
    order = torch.Generator().manual_seed(SEED)
    data = TensorDataset(torch.from_numpy(rows.features), torch.from_numpy(rows.labels))
    losses = []
    for _ in range(EPOCHS):
        running = 0.0
        sampler = torch.randperm(len(rows), generator=order).tolist()
        for inputs, labels in DataLoader(data, batch_size=BATCH_SIZE, sampler=sampler):
            optimizer.zero_grad()
            loss = criterion(fc(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(labels)
        scheduler.step()
        losses.append(running / len(rows))
    return fc, losses


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize(
    "settings",
    [
        HeadSettings(epochs=EPOCHS, batch_size=BATCH_SIZE),
        HeadSettings(epochs=EPOCHS, batch_size=BATCH_SIZE, lr=0.02, momentum=0.5, weight_decay=0.1, schedule="step"),
        HeadSettings(epochs=EPOCHS, batch_size=BATCH_SIZE, label_smoothing=0.1, schedule="cosine"),
        HeadSettings(epochs=EPOCHS, batch_size=BATCH_SIZE, class_weights="balanced"),
        HeadSettings(solver="adamw", epochs=EPOCHS, batch_size=BATCH_SIZE, lr=0.01),
        HeadSettings(solver="adamw", epochs=EPOCHS, batch_size=BATCH_SIZE, weight_decay=0.2, schedule="cosine"),
    ],
    ids=["sgd", "sgd-decay-step", "sgd-smoothing-cosine", "sgd-balanced", "adamw", "adamw-decay-cosine"],
)
def test_gradient_heads_equal_a_plain_loop(settings: HeadSettings, num_classes: int) -> None:
    rows = noisy(num_classes)
    rows = Rows(rows.features[:-20], rows.labels[:-20])
    ours = fit_head(rows, None, settings, num_classes=num_classes, seed=SEED)
    theirs, losses = plain_loop(rows, num_classes, settings)
    np.testing.assert_allclose(ours.probe.weight, theirs.weight.detach().numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.probe.bias, theirs.bias.detach().numpy(), rtol=0, atol=1e-5)
    assert [metrics.train_loss for metrics in ours.epochs] == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("class_weights", [None, "balanced"])
def test_lbfgs_equals_scikit_learn(num_classes: int, class_weights) -> None:
    rows = noisy(num_classes)
    settings = HeadSettings(solver="lbfgs", c=0.3, scaling="none", class_weights=class_weights)
    ours = fit_head(rows, None, settings, num_classes=num_classes, seed=0).probe
    theirs = LogisticRegression(C=0.3, max_iter=1000, class_weight=class_weights).fit(
        rows.features.astype(np.float64), rows.labels
    )
    np.testing.assert_allclose(
        predict(ours, rows.features), theirs.predict_proba(rows.features.astype(np.float64)), atol=1e-5
    )


@pytest.mark.parametrize("num_classes", [2, 5])
def test_lbfgs_on_scaled_features_equals_scikit_learn_on_them(num_classes: int) -> None:
    rows = noisy(num_classes)
    features = rows.features.astype(np.float64)
    scaled: dict[ScalingName, np.ndarray] = {
        "norm": features / np.sqrt((features**2).sum(axis=1).mean()),
        "standard": (features - features.mean(axis=0)) / features.std(axis=0),
    }
    for name, inputs in scaled.items():
        settings = HeadSettings(solver="lbfgs", c=2.0, scaling=name)
        ours = fit_head(rows, None, settings, num_classes=num_classes, seed=0).probe
        theirs = LogisticRegression(C=2.0, max_iter=1000).fit(inputs, rows.labels)
        np.testing.assert_allclose(predict(ours, rows.features), theirs.predict_proba(inputs), atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_ridge_has_the_classes_of_scikit_learn_at_a_temperature(num_classes: int) -> None:
    rows = noisy(num_classes)
    ours = fit_head(rows, None, HeadSettings(solver="ridge", scaling="none"), num_classes=num_classes, seed=0).probe
    theirs = RidgeClassifier(alpha=1.0).fit(rows.features.astype(np.float64), rows.labels)
    expected = theirs.decision_function(rows.features.astype(np.float64))
    found = logits(ours, rows.features)
    found = found[:, 1] - found[:, 0] if num_classes == 2 else found
    scale = (found * expected).sum() / (expected**2).sum()
    assert 1 <= scale <= 100
    np.testing.assert_allclose(found, scale * expected, atol=1e-4)


def test_prototypes_equal_the_nearest_mean_by_cosine() -> None:
    rows = noisy(5)
    unit = rows.features / np.linalg.norm(rows.features, axis=1, keepdims=True)
    means = np.stack([unit[rows.labels == label].mean(axis=0) for label in range(5)])
    expected = (unit @ means.T / np.linalg.norm(means, axis=1)).argmax(axis=1)
    ours: LinearProbe = fit_head(rows, None, HeadSettings(solver="prototypes"), num_classes=5, seed=0).probe
    assert (predict(ours, rows.features).argmax(axis=1) == expected).all()
    assert (ours.bias == 0).all()
