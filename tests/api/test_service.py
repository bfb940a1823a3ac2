"""Alive, ready, capable."""

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.engine.engine import Engine
from app.engine.request import Priority
from app.errors import AppError
from app.main import create_app
from app.modelpacks.pack import PackFile
from app.node.socket import RunDirInUse
from app.services.inference.loading import ModelChoice, start_inference
from app.services.inference.service import Inference
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.waiting import wait_until


def test_a_node_with_all_models_is_ready(http: httpx.Client) -> None:
    assert http.get("/livez").json() == {"status": "ok"}
    answer = http.get("/readyz")
    assert answer.status_code == 200
    states = {name: model["state"] for name, model in answer.json()["models"].items()}
    assert states == {"diffusion": "ready", "clip": "ready", "classifier": "ready", "backbone": "ready"}
    served = [(model["note"], model["expected_wait_s"]) for model in answer.json()["models"].values()]
    assert served == [(None, 0)] * 4, "nothing to remark, nothing to wait for"


class _BrokenClip(AppError):
    default_detail = "clip/model.safetensors is missing. Run `foxhound models fetch sd15`."


class _WithoutClip(FakeModels):
    def start(self, choice: ModelChoice) -> tuple[Engine, Inference]:
        engine, inference = super().start(choice)
        engine.close()
        broken = Engine(max_queue_size=4)

        def fail() -> None:
            raise _BrokenClip

        broken.add_model("clip", fail)  # type: ignore[arg-type]
        broken.add_model("diffusion", lambda: self.diffusion)
        broken.start()
        return broken, Inference(broken, self.pack, inference.runtime, inference._facts)


def test_one_model_that_fails_to_load_leaves_the_others_serving(tmp_path: Path, database_url: str) -> None:
    with serve(make_settings(tmp_path / "data", database_url), _WithoutClip()) as node:
        answer = node.http.get("/readyz")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        problem = answer.json()
        assert problem["models"]["clip"]["state"] == "failed"
        assert problem["models"]["clip"]["expected_wait_s"] is None
        assert "foxhound models fetch" in problem["detail"]
        assert node.http.get("/livez").status_code == 200
        drawn = node.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1})
        assert drawn.status_code == 200
        scored = node.http.post("/clip-score", json={"labels": ["fox"], "image_id": drawn.json()["images"][0]["id"]})
        assert (scored.status_code, scored.json()["code"]) == (503, "model_not_ready")
        assert int(scored.headers["retry-after"]) > 0


class _NotedEngine(Engine):
    def notes(self) -> dict[str, str]:
        return {"diffusion": "steps are smaller"}

    def expected_wait_s(self, model: str, priority: Priority = Priority.INTERACTIVE) -> float:
        return {"diffusion": 1.23456}.get(model, 0.0)


class _Busy(FakeModels):
    def start(self, choice: ModelChoice) -> tuple[Engine, Inference]:
        idle, inference = super().start(choice)
        idle.close()
        busy = _NotedEngine(max_queue_size=4)
        for name in ("diffusion", "clip"):
            busy.add_model(name, lambda: self.diffusion)
        busy.start()
        return busy, Inference(busy, self.pack, inference.runtime, inference._facts)


def test_a_ready_node_tells_what_an_operator_should_know_and_how_busy_it_is(tmp_path: Path, database_url: str) -> None:
    with serve(make_settings(tmp_path / "data", database_url), _Busy()) as node:
        for path in ("/readyz", "/capabilities"):
            models = node.http.get(path).json()["models"]
            assert (models["diffusion"]["note"], models["diffusion"]["expected_wait_s"]) == ("steps are smaller", 1.235)
            assert (models["clip"]["note"], models["clip"]["expected_wait_s"]) == (None, 0)


def test_a_pack_that_was_not_fetched_is_told_with_the_command_that_helps(tmp_path: Path, database_url: str) -> None:
    class Sd15(FakeModels):
        start = staticmethod(start_inference)

    settings = make_settings(tmp_path / "data", database_url, model_pack="sd15", device="cpu")
    with serve(settings, Sd15()) as node:
        for _ in range(1_000):  # loading fails at once; each answer takes milliseconds
            problem = node.http.get("/readyz").json()
            if not any(model["state"] == "loading" for model in problem["models"].values()):
                break
        assert {model["state"] for model in problem["models"].values()} == {"failed"}
        assert "foxhound models fetch sd15" in problem["detail"]
        answer = node.http.post("/generate", json={"prompt": "a fox"})
        assert (answer.status_code, answer.json()["code"]) == (503, "model_not_ready")


def test_capabilities_tell_the_bounds_of_this_node(node: Node) -> None:
    read = node.http.get("/capabilities").json()
    assert read["pack"]["name"] == "demo"
    assert (read["limits"]["min_side"], read["limits"]["max_side"]) == (64, 192)
    assert read["limits"]["queue_size"] == node.settings.max_queue_size
    assert len(read["noise_schedulers"]) == 9


def test_capabilities_tell_size_and_quality_of_the_pack(tmp_path: Path, database_url: str) -> None:
    models = FakeModels()
    files = (PackFile("clip/a", "0" * 64, 3), PackFile("clip/b", "1" * 64, 4))
    quality, made = {"generated": {"classifier_top1": 0.98}}, {"seeds": {"torch": 1}}
    measured = [{"scheduler": "ddim", "rows": 38, "rows_exact": 100, "psnr_db": 44.7}]
    all_quality = {**quality, "speeds": {"balanced": measured}}
    models.pack = replace(models.pack, files=files, quality=all_quality, made=made)
    with serve(make_settings(tmp_path / "data", database_url), models) as node:
        read = node.http.get("/capabilities").json()
    pack = read["pack"]
    assert read["speeds"] == [
        {"name": "exact", "defaults": None, "measured": []},
        {"name": "balanced", "defaults": None, "measured": measured},
    ]
    assert (pack["total_bytes"], pack["files"], pack["quality"], pack["made"]) == (7, 2, quality, made)


def test_the_engine_socket_is_for_this_user_alone(node: Node) -> None:
    mode = os.stat(node.settings.engine_socket).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_engine_socket_is_not_on_the_network(http: httpx.Client) -> None:
    assert http.post("/render", json={}).status_code == 404
    assert http.post("/feature-batch", content=b"").status_code == 404


def test_a_request_id_is_kept_if_it_is_harmless(http: httpx.Client) -> None:
    assert http.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert http.get("/livez", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"] != "a b\tc"


def test_a_node_whose_socket_was_taken_away_is_not_ready_and_says_so(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    assert node.http.get("/readyz").status_code == 200
    path = node.settings.engine_socket
    path.unlink()
    answer = node.http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "worker: it cannot reach the engine" in answer.json()["detail"]
    assert node.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).is_success
    wait_until(lambda: "FOXHOUND_RUN_DIR" in caplog.text)


def test_a_second_application_on_the_same_run_folder_does_not_start(node: Node) -> None:
    beside = create_app(node.settings, start_models=node.models.start)

    async def start() -> None:
        async with beside.router.lifespan_context(beside):
            raise AssertionError("it started")

    with pytest.raises(RunDirInUse):
        asyncio.run(start())
    assert node.settings.engine_socket.exists()
    assert node.http.get("/readyz").status_code == 200
