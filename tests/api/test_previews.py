"""Previews in the events of `/generate` and of jobs: when they come, what they show, and what they never change."""

import asyncio
import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from app.api.sse import Progress
from app.db.session import Database
from app.jobs import record
from app.node.client import NodeClient
from app.services.generations.job import GenerateJob
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.node import Node
from testing.waiting import PATIENCE_S
from tests.api.test_events import Event, parse

FOX = {"prompt": "a red fox", "num_inference_steps": 6, "seed": 42, "scheduler": "ddim"}
EVENTS = {"Accept": "text/event-stream"}


def told(http: httpx.Client, **fields: object) -> list[Event]:
    answer = http.post("/generate", json={**FOX, **fields}, headers=EVENTS)
    assert answer.status_code == 200, answer.text
    return list(parse(iter(answer.text.split("\n"))))


def size_of(png_b64: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(png_b64)), formats=["PNG"]) as picture:
        assert picture.mode == "RGB"
        return picture.size


def test_every_nth_step_has_a_preview_and_the_image_stays_the_same(http: httpx.Client) -> None:
    *progress, result = told(http, preview=2, width=96)
    previews = [event.data for event in progress if event.data["preview_png_b64"]]
    assert previews, "the last one at least"
    assert all(data["preview_step"] % 2 == 0 for data in previews)
    assert all(size_of(data["preview_png_b64"]) == (12, 8) for data in previews)
    assert (result.name, "preview" in result.data["parameters"]) == ("result", False)
    without = told(http, width=96)
    assert all(event.data["preview_png_b64"] is None for event in without[:-1])
    assert without[-1].data["images"][0]["sha256"] == result.data["images"][0]["sha256"]


def test_an_answer_without_events_has_no_previews(http: httpx.Client) -> None:
    answer = http.post("/generate", json={**FOX, "preview": 1})
    assert answer.status_code == 200
    assert "preview" not in answer.text


@pytest.mark.parametrize("preview", [0, -1, 151, 1.5, "1", True])
def test_a_preview_is_a_number_of_steps(http: httpx.Client, preview: object) -> None:
    answer = http.post("/generate", json={**FOX, "preview": preview})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/preview")


def test_a_slow_reader_gets_the_newest_preview_with_the_newest_step() -> None:
    async def scenario() -> None:
        progress = Progress(num_images=2)
        for step in range(5):
            progress.report(0, step, 5, f"step {step}".encode() if step % 2 else None)
        progress.report(1, 2, 5)
        progress.report(1, 1, 5, b"late")  # encoded after the next step was reported
        first, second = progress.take()
        assert (first.step, first.preview_step, base64.b64decode(first.preview_png_b64 or "")) == (4, 3, b"step 3")
        assert (second.step, second.preview_step, base64.b64decode(second.preview_png_b64 or "")) == (2, 1, b"late")
        progress.report(0, 5, 5)
        [last] = progress.take()
        assert (last.step, last.preview_step, last.preview_png_b64) == (5, None, None), "a preview is sent once"

    asyncio.run(scenario())


def test_the_events_of_a_job_have_previews(node: Node) -> None:
    body = {**FOX, "preview": 2, "num_images_per_prompt": 2}
    made = node.http.post("/generate", json=body, headers={"Prefer": "respond-async"})
    assert made.status_code == 202, made.text
    job = made.json()
    assert (job["spec"]["preview"], job["preview"]) == (2, None)
    states: list[dict[str, Any]] = []
    has_begun = threading.Event()

    def watch() -> None:
        with node.http.stream("GET", f"/jobs/{job['id']}/events", timeout=PATIENCE_S) as answer:
            for event in parse(answer.iter_lines()):
                states.append({**event.data, "event": event.name})
                has_begun.set()

    viewer = threading.Thread(target=watch)
    viewer.start()
    assert has_begun.wait(PATIENCE_S)
    result = work(node, job["id"])
    viewer.join(PATIENCE_S)
    shown = [state for state in states if state["preview"]]
    assert shown, "the newest of those that came between two reads"
    assert {state["event"] for state in shown} <= {"progress", "status"}
    assert all(size_of(state["preview"]["preview_png_b64"]) == (8, 8) for state in shown)
    assert all(state["preview"]["step"] % 2 == 0 for state in shown)
    assert states[-1]["status"] == "succeeded"
    generation = node.http.get(f"/generations/{result['generation_id']}").json()
    assert "preview" not in generation["parameters"]


def test_the_events_of_a_job_have_its_place_in_the_engine(small_node: Node) -> None:
    http, diffusion = small_node.http, small_node.models.diffusion
    job_id = http.post("/generate", json=FOX, headers={"Prefer": "respond-async"}).json()["id"]
    diffusion.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        inline = pool.submit(http.post, "/generate", json={**FOX, "num_inference_steps": 150})
        assert diffusion.stepping.wait(PATIENCE_S)
        with http.stream("GET", f"/jobs/{job_id}/events", timeout=PATIENCE_S) as answer:
            told = parse(answer.iter_lines())
            assert next(told).data["position"] is None
            working = pool.submit(work, small_node, job_id)
            while (event := next(told)).data["position"] is None:
                pass
            diffusion.gate.set()
            assert event.data["position"] == 1
            *_, last = told
        assert (last.data["status"], last.data["position"]) == ("succeeded", None)
        assert inline.result(PATIENCE_S).status_code == 200
        working.result(PATIENCE_S)


def work(node: Node, job_id: str) -> dict[str, Any]:
    """Do a generate job as a worker would, and return its result."""
    db, client = Database(node.settings.resolved_database_url), NodeClient(node.settings.engine_socket)
    handler = GenerateJob(db, DataFolder(node.settings.data_dir), client)
    try:
        with db.transaction() as session:
            record.begin(session, job_id)
        result = run_job(db, job_id, handler)
        with db.transaction() as session:
            record.finish(session, job_id, handler.on_end, completed=True, result=result)
        assert result is not None
        return result
    finally:
        client.close()
        db.close()
