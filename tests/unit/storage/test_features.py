"""The feature cache gives back what was put, or nothing."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from app.storage.features import FeatureCache, feature_key

KEY = feature_key("ab" * 32, "resnet18@1", "resize-256-crop-224")
ARRAY = np.linspace(-1, 1, 512, dtype=np.float32)


def file_of(root: Path, key: str = KEY) -> Path:
    return root / key[:2] / f"{key}.npy"


def test_what_was_put_comes_back_in_any_process(tmp_path: Path) -> None:
    FeatureCache(tmp_path).put(KEY, ARRAY)
    found = FeatureCache(tmp_path).get(KEY)
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, ARRAY)


def test_an_unknown_key_is_a_miss(tmp_path: Path) -> None:
    assert FeatureCache(tmp_path / "nowhere").get(KEY) is None


def test_each_part_of_the_key_counts_and_none_runs_into_the_next() -> None:
    keys = [feature_key(*parts) for parts in (("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "d"))]
    assert len(set(keys)) == 4
    assert all(len(key) == 64 for key in keys)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(2176),
        b"text",
        npy(ARRAY)[:100],
        npy(ARRAY)[:-1],
        npy(ARRAY.astype(np.float64)),
        npy(np.array([print], dtype=object)),
        npy(ARRAY).replace(b"(512,)", b"(9e9,)"),
        npy(ARRAY)[:10] + b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }".ljust(117) + b"\n",
    ],
    ids=["empty", "zeros", "text", "cut-header", "cut-data", "float64", "pickle", "bad-shape", "huge-shape"],
)
def test_a_damaged_file_is_a_miss_and_can_be_put_again(tmp_path: Path, content: bytes) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, ARRAY)
    file_of(tmp_path).write_bytes(content)
    assert cache.get(KEY) is None
    cache.put(KEY, ARRAY)
    assert cache.get(KEY) is not None


@pytest.mark.parametrize("key", ["", "../../etc/passwd", KEY.upper(), KEY[:-1], KEY + "/"])
def test_other_keys_are_a_mistake_of_the_caller(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        FeatureCache(tmp_path).get(key)


def test_the_cache_stays_below_its_bound_and_forgets_the_oldest_first(tmp_path: Path) -> None:
    size = len(npy(ARRAY))
    keys = [feature_key(str(index), "", "") for index in range(30)]
    cache = FeatureCache(tmp_path, max_bytes=10 * size)
    for age, key in enumerate(keys):
        cache.put(key, ARRAY)
        os.utime(file_of(tmp_path, key), (age, age))
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.npy")) <= 10 * size
    kept = [key for key in keys if cache.get(key) is not None]
    assert kept == keys[-len(kept) :]
    assert len(kept) >= 8


def test_a_new_process_counts_what_lies_there(tmp_path: Path) -> None:
    keys = [feature_key(str(index), "", "") for index in range(4)]
    for key in keys:
        FeatureCache(tmp_path).put(key, ARRAY)
    FeatureCache(tmp_path, max_bytes=2 * len(npy(ARRAY))).put(KEY, ARRAY)
    assert len(list(tmp_path.rglob("*.npy"))) <= 2
