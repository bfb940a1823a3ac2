"""The linear probe learns, is determined by its seed, and rejects invalid input."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from torch import nn
from torchvision.models import resnet18

from app.training.linear_probe import (
    Diverged,
    EpochMetrics,
    FitResult,
    LinearProbe,
    OptimizerSettings,
    fit,
    load_probe,
    predict,
    save_probe,
)

NUM_CLASSES, NUM_FEATURES = 3, 16


def clusters(num_rows: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around one centre per class, well apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_rows) % NUM_CLASSES
    centres = np.eye(NUM_CLASSES, NUM_FEATURES) * 8
    return (centres[labels] + random.normal(size=(num_rows, NUM_FEATURES))).astype(np.float32), labels.astype(np.int64)


TRAIN, TEST = clusters(60), clusters(30, seed=1)


def train(**changes: Any) -> FitResult:
    options: dict[str, Any] = {"num_classes": NUM_CLASSES, "epochs": 3, "seed": 1, **changes}
    return fit(*TRAIN, *TEST, **options)


def test_separable_classes_are_learned() -> None:
    result = train(epochs=30, optimizer=OptimizerSettings(lr=0.01))
    assert result.epochs[-1].test_accuracy == 1.0
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss / 2
    assert (predict(result.probe, TEST[0]).argmax(axis=1) == TEST[1]).all()


def test_each_epoch_is_reported_as_it_ends() -> None:
    reported: list[EpochMetrics] = []
    result = train(on_epoch=reported.append)
    assert tuple(reported) == result.epochs
    assert [metrics.epoch for metrics in reported] == [1, 2, 3]
    assert all(metrics.lr == 0.001 and metrics.elapsed_ms > 0 for metrics in reported)


def test_the_last_test_metrics_are_those_of_the_probe() -> None:
    result = train()
    probabilities = predict(result.probe, TEST[0])
    loss = -np.log(probabilities[np.arange(30), TEST[1]]).mean()
    assert result.epochs[-1].test_loss == pytest.approx(loss, abs=1e-6)
    assert result.epochs[-1].test_accuracy == (probabilities.argmax(axis=1) == TEST[1]).mean()


@pytest.mark.parametrize("test", [(None, None), (np.zeros((0, NUM_FEATURES), np.float32), np.zeros(0, np.int64))])
def test_without_test_rows_there_are_no_test_metrics(test: tuple) -> None:
    result = fit(*TRAIN, *test, num_classes=NUM_CLASSES, epochs=1)
    assert result.epochs[0].test_loss is None
    assert result.epochs[0].test_accuracy is None


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    saved = [save_probe(train(seed=seed).probe, classes=["a", "b", "c"], backbone="resnet18") for seed in (1, 1, 2)]
    assert saved[0] == saved[1]
    assert saved[0] != saved[2]


def test_the_thread_count_changes_no_result_and_is_restored() -> None:
    random = np.random.default_rng(0)  # large enough that two threads would sum in another order
    features, labels = random.normal(size=(600, 2048)).astype(np.float32), np.arange(600) % 10
    before = torch.get_num_threads()
    weights, after = [], []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        weights.append(fit(features, labels, None, None, num_classes=10, epochs=1, batch_size=300).probe.weight)
        after.append(torch.get_num_threads())
    torch.set_num_threads(before)
    assert after == [1, 2]
    assert np.array_equal(weights[0], weights[1])


def test_the_first_weights_are_torchs_own_under_the_seed() -> None:
    untrained = train(seed=7, optimizer=OptimizerSettings(lr=0.0))
    torch.manual_seed(7)
    fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)
    assert np.array_equal(untrained.probe.weight, fc.weight.detach().numpy())
    assert np.array_equal(untrained.probe.bias, fc.bias.detach().numpy())


def test_training_does_not_use_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert np.array_equal(train().probe.weight, first.probe.weight)


def test_the_callers_arrays_are_not_changed_and_may_be_read_only() -> None:
    features, labels = TRAIN[0].copy(), TRAIN[1].copy()
    features.flags.writeable = labels.flags.writeable = False
    fit(features, labels, None, None, num_classes=NUM_CLASSES, epochs=1)
    assert np.array_equal(features, TRAIN[0])


def test_a_loss_beyond_all_numbers_is_no_success() -> None:
    reported: list[EpochMetrics] = []
    with pytest.raises(Diverged):
        train(optimizer=OptimizerSettings(lr=3e38), on_epoch=reported.append, epochs=20)
    assert all(np.isfinite(metrics.train_loss) for metrics in reported)


def test_a_loss_a_hundred_times_that_of_an_untrained_head_is_no_success() -> None:
    random = np.random.default_rng(0)  # overlapping classes at the norm of ResNet's features
    features, labels = random.normal(size=(240, 512)).astype(np.float32) + 1, np.arange(240) % 2
    reported: list[EpochMetrics] = []
    with pytest.raises(Diverged):
        fit(
            features, labels, None, None,
            num_classes=2, epochs=2, optimizer=OptimizerSettings(lr=10.0), on_epoch=reported.append,
        )  # fmt: skip
    assert 100 < reported[-1].train_loss < np.inf


@pytest.mark.parametrize(
    ("features", "labels", "num_classes"),
    [
        (np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1]), 3),
        (np.zeros((4, 2), np.float32), np.array([0, 0, 0, 0]), 1),
        (np.zeros((4, 2), np.float32), np.array([0, 0, 1, 2]), 2),
        (np.zeros((4, 2), np.float32), np.array([0, 0, 1, -1]), 2),
        (np.zeros((4, 2), np.float32), np.array([0, 1, 0]), 2),
        (np.zeros((0, 2), np.float32), np.array([], np.int64), 2),
        (np.zeros(4, np.float32), np.array([0, 1, 0, 1]), 2),
        (np.full((2, 2), np.nan, np.float32), np.array([0, 1]), 2),
    ],
    ids=["empty-class", "one-class", "label-high", "label-negative", "lengths", "no-rows", "flat", "nan"],
)
def test_invalid_training_data_is_rejected(features: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        fit(features, labels, None, None, num_classes=num_classes)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"batch_size": 0}])
def test_counts_below_one_are_rejected(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        train(**changes)


def test_a_batch_larger_than_the_dataset_is_the_dataset() -> None:
    whole = train(batch_size=len(TRAIN[0]))
    assert np.array_equal(train(batch_size=10_000).probe.weight, whole.probe.weight)


def test_a_saved_probe_loads_unchanged() -> None:
    probe = train().probe
    loaded = load_probe(save_probe(probe, classes=["fox", "dog", "狐"], backbone="resnet18"))
    assert np.array_equal(loaded.weight, probe.weight)
    assert np.array_equal(loaded.bias, probe.bias)
    assert np.array_equal(predict(loaded, TEST[0]), predict(probe, TEST[0]))


def test_a_file_names_its_classes_and_fits_torchvisions_model(tmp_path) -> None:
    probe = LinearProbe(np.ones((3, 512), np.float32), np.zeros(3, np.float32))
    path = tmp_path / "model.safetensors"
    path.write_bytes(save_probe(probe, classes=["fox", "dog", "狐"], backbone="resnet18"))
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["foxhound"]) == {"backbone": "resnet18", "classes": ["fox", "dog", "狐"]}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = resnet18(weights=None, num_classes=3)
    assert model.load_state_dict(tensors, strict=False).unexpected_keys == []
    assert torch.equal(model.fc.weight, torch.ones(3, 512))


def test_a_head_on_normalised_features_says_so_in_its_file() -> None:
    probe = LinearProbe(np.ones((3, 4), np.float32), np.zeros(3, np.float32), normalise=True)
    raw = LinearProbe(probe.weight, probe.bias)
    saved, saved_raw = (save_probe(each, classes=["a", "b", "c"], backbone="clip") for each in (probe, raw))
    assert load_probe(saved).normalise
    assert not load_probe(saved_raw).normalise
    assert b"normalise" not in saved_raw


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"foxhound": "no JSON"}, {"foxhound": "[1]"}])
def test_a_file_without_our_metadata_has_a_head_on_raw_features(metadata: dict | None) -> None:
    assert not load_probe(safetensors.numpy.save(GOOD, metadata=metadata)).normalise


GOOD = {"fc.weight": np.ones((2, 4), np.float32), "fc.bias": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04.",
        b"\xff" * 100,
        (1 << 60).to_bytes(8, "little") + b"{}",
        safetensors.numpy.save(GOOD)[:-1],
        safetensors.numpy.save({"fc.weight": GOOD["fc.weight"]}),
        safetensors.numpy.save(GOOD | {"more": GOOD["fc.bias"]}),
        safetensors.numpy.save(GOOD | {"fc.bias": np.ones(3, np.float32)}),
        safetensors.numpy.save(GOOD | {"fc.weight": np.ones((2, 4, 1), np.float32)}),
        safetensors.numpy.save(GOOD | {"fc.weight": np.ones((2, 4), np.float64)}),
        safetensors.numpy.save(GOOD | {"fc.bias": np.array([0, np.inf], np.float32)}),
    ],
    ids=["empty", "pickle", "noise", "huge", "cut", "missing", "more", "bias", "weight", "float64", "infinite"],
)
def test_other_files_are_no_probe(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"safetensors|probe|fc"):
        load_probe(data)


def test_probabilities_are_torchs_softmax() -> None:
    probe = train().probe
    logits = torch.from_numpy(TEST[0]) @ torch.from_numpy(probe.weight).T + torch.from_numpy(probe.bias)
    probabilities = predict(probe, TEST[0])
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, logits.softmax(dim=1).numpy(), atol=1e-6)
