"""Models in use: the default one needs nothing, others are loaded, and a failure is not tried again at once."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.errors import AppError, Invalid, ModelNotReady
from app.metrics.node import LoadedWeights
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import ListedModel
from app.modelpacks.pack import PackError
from app.services.inference.diffusion.models import FAILED_S, LoadedModel, Models


def listed(name: str, fault: str | None = None) -> ListedModel:
    skeleton: Any = None if fault else SimpleNamespace(num_bytes=40)
    return ListedModel(name, Path(name), skeleton=skeleton, fault=fault)


class Others:
    """The models `a` and `b`, and `cut`, which cannot be used; `errors` says what loading raises."""

    def __init__(self) -> None:
        self.listed: Mapping[str, ListedModel] = {
            each.name: each for each in (listed("a"), listed("b"), listed("cut", "Its file is truncated."))
        }
        self.errors: dict[str, Exception] = {}
        self.loads: list[str] = []

    def folder(self, name: str) -> AdapterFolder | None:
        return None

    def load(self, name: str) -> LoadedModel:
        self.loads.append(name)
        if error := self.errors.get(name):
            raise error
        return LoadedModel(name)

    def revision(self, name: str) -> str:
        if name in self.errors:
            raise self.errors[name]
        return f"weights of {name}"

    def drop(self, name: str) -> None:
        self.loads.append(f"drop {name}")


class Bench:
    def __init__(self) -> None:
        self.others, self.now, self.dropped = Others(), 0.0, cast(list[LoadedModel], [])
        self.own = LoadedModel()
        self.models = Models(
            lambda: self.others,
            lambda: self.own,
            max_bytes=40,
            on_drop=self.dropped.append,
            clock=lambda: self.now,
        )

    def hold(self, *names: str | None) -> list[LoadedModel]:
        async def main() -> list[LoadedModel]:
            held = []
            for name in names:
                async with self.models.hold(name) as model:
                    held.append(model)
            return held

        return asyncio.run(asyncio.wait_for(main(), 10))

    def error(self, name: str) -> AppError:
        with pytest.raises(AppError) as caught:
            self.hold(name)
        return caught.value


@pytest.fixture
def bench() -> Any:
    bench = Bench()
    yield bench
    bench.models.close()


def test_the_default_model_needs_no_loading(bench: Bench) -> None:
    assert bench.hold(None) == [bench.own]
    assert bench.others.loads == []


def test_models_are_loaded_evicted_and_known(bench: Bench) -> None:
    held = bench.hold("a", "a", "b")
    assert [model.name for model in held] == ["a", "a", "b"]
    assert bench.others.loads == ["a", "drop a", "b"]
    assert bench.dropped == [held[0]]
    assert (bench.models.loaded("a"), bench.models.loaded("b")) == (None, held[2])
    assert bench.models.peak_bytes == 40
    assert bench.models.state() == LoadedWeights(1, bench.models.state().num_bytes, 40, 0, 2, 0, 1)


def test_a_revision_is_known_without_loading(bench: Bench) -> None:
    assert bench.models.revision("a") == "weights of a"
    assert bench.others.loads == []
    bench.others.errors["a"] = PackError("Its files were replaced.")
    for name, detail in (("a", "Its files were replaced."), ("cut", "truncated"), ("none", "no model of this name")):
        with pytest.raises(Invalid, match=detail) as caught:
            bench.models.revision(name)
        assert caught.value.code == "model_not_found"


def test_what_is_not_there_is_refused_with_what_is(bench: Bench) -> None:
    error = bench.error("none")
    assert isinstance(error, Invalid)
    assert (error.code, error.detail) == ("model_not_found", "The node has no model of this name. It has a, b.")
    assert bench.error("cut").detail == "This model cannot be used. Its file is truncated."


def test_a_broken_file_is_said_and_not_read_again_at_once(bench: Bench) -> None:
    bench.others.errors["a"] = PackError("Its files were replaced.")
    for _ in range(3):
        error = bench.error("a")
        assert (type(error), error.code, error.detail) == (
            Invalid,
            "model_not_found",
            "This model cannot be used. Its files were replaced.",
        )
    assert bench.others.loads == ["a"]
    assert bench.models.failure("a") == error.detail
    bench.now = FAILED_S + 1
    bench.others.errors.clear()
    assert bench.hold("a")[0].name == "a"
    assert bench.models.failure("a") is None


def test_any_other_failure_is_a_503_that_quotes_nothing(bench: Bench) -> None:
    bench.others.errors["a"] = RuntimeError("out of memory at 0x1")
    error = bench.error("a")
    assert isinstance(error, ModelNotReady)
    assert "0x1" not in error.detail
    assert error.retry_after_s == FAILED_S
