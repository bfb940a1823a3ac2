"""`foxhound_client` against a served node, blocking and asynchronous, and against scripted faults."""

import asyncio
import inspect
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.caller import Scope
from app.db.models import Job
from app.db.session import Database
from app.jobs import record
from foxhound_client import (
    AccessRefused,
    AsyncFoxhound,
    Foxhound,
    FoxhoundError,
    JobFailed,
    NotFound,
    TryLater,
    Unreachable,
)
from foxhound_client.models import GenerationProgress, GenerationRead
from testing.answers import a_dataset, a_job
from testing.api_keys import new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.scripted import reply, scripted
from testing.uploads import CLASSES as UPLOAD_CLASSES
from testing.uploads import create_empty, picture, upload

CLASSES = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
CLASS = UPLOAD_CLASSES[0]
RECIPE = {"name": "fox-dog", "classes": CLASSES, "train_per_class": 2, "test_per_class": 0}


class Waiter:
    """Runs the methods of an asynchronous client to their end, so that one test is for both clients."""

    def __init__(self, target: Any, loop: asyncio.Runner) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._call(found) if callable(found) else Waiter(found, self._loop)

    def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **options: object) -> Any:
            result = method(*args, **options)
            if inspect.iscoroutine(result):
                return self._loop.run(result)
            return iter(self._loop.run(_collected(result)))

        return call


async def _collected(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


Connect = Callable[..., Any]


@pytest.fixture(params=["blocking", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make a client of either kind that waits for nothing; what it would wait for is in `slept`."""
    with ExitStack() as stack:
        loop = stack.enter_context(asyncio.Runner())

        def make(url: object, **options: Any) -> Any:
            slept: list[float] = options.pop("slept", [])
            options = {"retry_for_s": 1_000.0, **options}
            if request.param == "blocking":
                return stack.enter_context(Foxhound(str(url), sleep=options.pop("sleep", slept.append), **options))

            async def sleep(seconds: float) -> None:
                slept.append(seconds)

            waiting = options.pop("sleep", None)
            client = AsyncFoxhound(str(url), sleep=sleep if waiting is None else _awaited(waiting), **options)
            stack.callback(lambda: loop.run(client.close()))
            return Waiter(client, loop)

        yield make


def _awaited(sleep: Callable[[float], None]) -> Callable[[float], Any]:
    async def wait(seconds: float) -> None:
        sleep(seconds)

    return wait


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """SQLite alone: a client sees no database."""
    path = tmp_path / "foxhound.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


def end(database_url: str, job_id: str, **result: object) -> None:
    """Do with a job's row what a worker would."""
    db = Database(database_url)
    with db.transaction() as session:
        if session.get_one(Job, job_id).started_at is None:
            record.begin(session, job_id)
        record.advance(session, job_id, 4)
        record.finish(session, job_id, lambda *_: None, completed=True, result=result)
    db.close()


def test_both_clients_have_the_same_methods_with_the_same_signatures() -> None:
    blocking, asynchronous = Foxhound("http://a"), AsyncFoxhound("http://a")
    for group in ("datasets", "models", "jobs"):
        one, other = getattr(blocking, group), getattr(asynchronous, group)
        assert type(one) is type(other)
        assert [name for name in dir(one) if name[0] != "_"]
    public = {name for name in dir(Foxhound) if name[0] != "_"}
    assert public == {name for name in dir(AsyncFoxhound) if name[0] != "_"}
    for name in public - {"close"}:
        assert inspect.getdoc(getattr(blocking, name))
        assert inspect.signature(getattr(blocking, name)) == inspect.signature(getattr(asynchronous, name))


def test_images_are_made_judged_and_followed(node: Node, connect: Connect, tmp_path: Path) -> None:
    fox = connect(node.http.base_url)
    made = fox.generate(prompt="a red fox", num_images_per_prompt=2, num_inference_steps=3)
    assert [image.format for image in made.images] == ["png", "png"]
    assert fox.image(made.images[0].id).startswith(b"\x89PNG")
    data = fox.generate_image(prompt="a red fox", num_inference_steps=3, output_format="jpeg")
    assert data[:3] == b"\xff\xd8\xff"
    *steps, last = list(fox.generate_events(prompt="a red fox", num_inference_steps=3))
    assert steps
    assert all(isinstance(step, GenerationProgress) for step in steps)
    assert isinstance(last, GenerationRead)
    path = tmp_path / "fox.jpg"
    path.write_bytes(data)
    labels = ["fox", "a long label", "dog"]
    for image in (path, str(path), data):
        assert [score.label for score in fox.clip_score(image, labels).scores] == labels
        assert len(fox.classify(image, top_k=2).predictions) == 2
    assert len(fox.classify(io.BytesIO(data), top_k=3).predictions) == 3
    assert len(fox.clip_scores([path, data], labels).results) == 2
    assert len(fox.classify_all([path, data]).results) == 2
    assert fox.capabilities().version
    assert fox.backbones().model_dump()


def test_a_dataset_is_filled_read_and_downloaded(node: Node, connect: Connect, tmp_path: Path) -> None:
    fox = connect(node.http.base_url)
    made = fox.datasets.find(create_empty(node.http, "mine")["name"])
    seen: list[tuple[int, int, str]] = []
    files = [picture(number) for number in range(3)]
    told = fox.datasets.upload(made.id, files, class_name=CLASS, on_progress=lambda *each: seen.append(each))
    assert (told.num_accepted, told.num_refused, seen) == (3, 0, [(3, 3, "files")])
    again = fox.datasets.upload(made.id, files[:1], class_name=CLASS)
    assert again.files[0].refused.duplicate_of == told.files[0].image_id
    images = list(fox.datasets.images(made.id, split="train"))
    assert {image.id for image in images} == {file.image_id for file in told.files}
    seen.clear()
    zipped = fox.datasets.archive(made.id, tmp_path / "mine.zip", on_progress=lambda *each: seen.append(each))
    assert zipped.read_bytes() == node.http.get(f"/datasets/{made.id}/archive.zip").content
    assert seen[-1] == (zipped.stat().st_size, zipped.stat().st_size, "bytes")
    (shard,) = fox.datasets.shards(made.id).shards
    assert fox.datasets.shard(made.id, shard.index, tmp_path / "0.tar").stat().st_size > 0
    assert json.loads(fox.datasets.coco(made.id, tmp_path / "coco.json").read_text())["images"]
    assert json.loads(fox.datasets.croissant(made.id))["name"]
    assert [one.name for one in fox.datasets.list()] == ["mine"]
    fox.datasets.delete(made.id)
    with pytest.raises(NotFound):
        fox.datasets.get(made.id)


def test_a_file_sent_with_hundreds_of_others_arrives_in_calls_of_a_hundred(connect: Connect) -> None:
    sizes: list[int] = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        sizes.append(body.count(b'name="files"'))
        files = [{"index": index, "image_id": f"i{index}", "refused": None} for index in range(sizes[-1])]
        reply(handler, 201, {"num_accepted": sizes[-1], "num_refused": 0, "files": files})

    with scripted(answer) as url:
        told = connect(url).datasets.upload("d", (b"x%d" % number for number in range(250)), class_name="fox")
    assert (sizes, told.num_accepted, told.files[-1].index) == ([100, 100, 50], 250, 249)


def test_jobs_are_waited_for_paused_and_retried(node: Node, connect: Connect, database_url: str) -> None:
    fox = connect(node.http.base_url)
    made = fox.datasets.ensure(**RECIPE)
    assert (made.existed, fox.datasets.ensure(**RECIPE).existed) == (False, True)
    assert fox.datasets.plan(**{**RECIPE, "name": "other"}).num_images == 4
    job_id = made.dataset.job_id
    assert fox.jobs.pause(job_id).status == "paused"
    assert fox.jobs.resume(job_id).status == "queued"
    assert fox.jobs.cancel(job_id).status == "cancelled"
    with pytest.raises(JobFailed, match="cancelled") as failed:
        fox.jobs.wait(job_id)
    assert failed.value.job.id == job_id
    retried = fox.jobs.retry(job_id, idempotency_key="again")
    assert fox.jobs.retry(job_id, idempotency_key="again").id == retried.id
    assert [job.id for job in fox.jobs.list(status="queued")] == [retried.id]
    end(database_url, retried.id)
    seen: list[tuple[int, int, str]] = []
    done = fox.jobs.wait(retried.id, on_progress=lambda *each: seen.append(each))
    assert (done.status, seen[-1]) == ("succeeded", (4, 4, "images"))
    submitted = fox.submit(prompt="a fox", idempotency_key="k")
    assert fox.submit(prompt="a fox", idempotency_key="k").id == submitted.id


def test_problems_are_exceptions_with_what_the_service_said(node: Node, connect: Connect) -> None:
    fox = connect(node.http.base_url)
    with pytest.raises(FoxhoundError) as invalid:
        fox.generate(prompt="", oddity=1)
    problem = invalid.value.problem
    assert problem is not None
    assert (problem.status, bool(problem.request_id)) == (422, True)
    assert any(line.startswith("#/oddity: ") for line in invalid.value.faults)
    with pytest.raises(NotFound, match="404"):
        fox.jobs.get("no-such-job")
    with pytest.raises(FoxhoundError, match="http://host:port"):
        connect("localhost:8000")


def test_a_wrong_key_is_refused_and_the_right_one_is_sent(
    tmp_path: Path, connect: Connect, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(database_url, "reader", Scope.READ).key
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as node:
        with pytest.raises(AccessRefused):
            list(connect(node.http.base_url, api_key="fh_wrong").jobs.list())
        monkeypatch.setenv("FOXHOUND_API_KEY", key)
        monkeypatch.setenv("FOXHOUND_URL", str(node.http.base_url))
        assert list(connect("").jobs.list()) == []
        with pytest.raises(AccessRefused, match="scope_missing"):
            connect("").generate(prompt="a fox")


# A service that is away, full or slow.


def test_a_full_service_is_asked_again_after_the_time_that_it_says(connect: Connect) -> None:
    keys: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        keys.append(handler.headers["idempotency-key"])
        if len(keys) < 4:
            status = 503 if len(keys) < 3 else 429
            reply(handler, status, {"detail": "Later.", "code": "queue_full", "status": status}, Retry_After="7")
        else:
            reply(handler, 202, a_dataset())

    slept: list[float] = []
    with scripted(answer) as url:
        connect(url, slept=slept).datasets.create(**RECIPE)
        assert slept == [7, 7, 7]
        assert (len(keys), len(set(keys)), keys[0] is None) == (4, 1, False)
        keys.clear()
        with pytest.raises(TryLater, match="Later") as full:
            connect(url, slept=slept, retry_for_s=6).datasets.create(**RECIPE)
    assert (full.value.code, slept, len(keys)) == ("queue_full", [7, 7, 7], 1)


def test_a_post_whose_answer_is_lost_makes_its_work_once(node: Node, connect: Connect) -> None:
    """The proxy passes each request on and closes the connection instead of answering the first POST."""
    lost: list[str] = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        passed = node.http.request(handler.command, handler.path, content=body, headers=headers)
        if handler.command == "POST" and len(lost) < 1:
            lost.append(handler.path)
            handler.connection.close()
            return
        reply(handler, passed.status_code, passed.json(), **{"Idempotency_Replayed": "true"})

    with scripted(answer) as url:
        fox = connect(url)
        fox.datasets.create(**RECIPE)
        assert len(list(fox.datasets.list())) == 1
        lost.clear()
        with pytest.raises(Unreachable):  # it has no key, so the client cannot know
            fox.generate(prompt="a fox", num_inference_steps=1)
    assert len(node.http.get("/generations").json()["items"]) == 1


def test_a_wrong_url_is_given_up_soon_and_a_known_service_is_waited_for(connect: Connect) -> None:
    slept: list[float] = []
    with pytest.raises(Unreachable, match="See whether the service runs and whether this is its URL"):
        connect("http://127.0.0.1:9", slept=slept).capabilities()
    assert slept == [0.5, 1.0]

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        reply(handler, 200, {"items": [], "next_cursor": None, "total": 0})

    with scripted(answer) as url:
        fox = connect(url, slept=slept, retry_for_s=20)
        assert list(fox.datasets.list()) == []
    slept.clear()
    with pytest.raises(Unreachable):
        list(fox.datasets.list())
    assert slept == [0.5, 1, 2, 4, 8]


def test_a_download_that_is_cut_off_goes_on_behind_its_last_byte(node: Node, connect: Connect, tmp_path: Path) -> None:
    made = create_empty(node.http, "mine")
    upload(node.http, made["id"], [picture(1), picture(2)])
    ranges: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        ranges.append(handler.headers["range"])
        names = ("range", "if-range", "accept-encoding")
        headers = {name: handler.headers[name] for name in names if handler.headers[name]}
        passed = node.http.get(handler.path, headers=headers)
        handler.send_response(passed.status_code)
        for name in ("etag", "content-length", "content-range"):
            if name in passed.headers:
                handler.send_header(name, passed.headers[name])
        handler.end_headers()
        handler.wfile.write(passed.content[:400] if len(ranges) < 4 else passed.content)

    whole = node.http.get(f"/datasets/{made['id']}/archive.zip").content
    with scripted(answer) as url:
        path = tmp_path / "mine.zip"
        with pytest.raises(Unreachable):  # as if the program were killed: what came stays
            connect(url, retry_for_s=0).datasets.archive(made["id"], path)
        assert (path.exists(), (tmp_path / "mine.zip.part").read_bytes()) == (False, whole[:400])
        connect(url).datasets.archive(made["id"], path)
    assert path.read_bytes() == whole
    assert ranges == [None, "bytes=399-", "bytes=798-", "bytes=1197-"]
    assert [found.name for found in tmp_path.glob("mine.zip*")] == ["mine.zip"]


def test_a_job_is_followed_across_a_restart_of_the_node(tmp_path: Path, database_url: str, connect: Connect) -> None:
    settings = make_settings(tmp_path / "data", database_url)
    with ExitStack() as second, ExitStack() as first:
        node = first.enter_context(serve(settings, FakeModels()))
        url, port = node.http.base_url, node.http.base_url.port or 80
        job_id = node.http.post("/datasets", json=RECIPE).json()["job_id"]
        node.begin_stop()
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 1:
                first.close()
            elif len(waits) == 3:
                end(database_url, job_id)
                second.enter_context(serve(settings, FakeModels(), port))

        fox = connect(url, sleep=sleep, first_answer_s=1_000.0)
        assert [job.status for job in fox.jobs.events(job_id)][-1] == "succeeded"
    assert len(waits) >= 3


def test_events_are_taken_up_behind_the_last_one_seen(connect: Connect) -> None:
    last_ids: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if handler.path == "/jobs/j":
            reply(handler, 200, a_job(2, 100))
            return
        last_ids.append(handler.headers["last-event-id"])
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        job = a_job(1, 50) if len(last_ids) == 1 else a_job(3, 400, "succeeded")
        handler.wfile.write(f"retry: 5\n\n: ping\n\nid: 9\ndata: {json.dumps(job)}\n\ndata: {{cut".encode())

    with scripted(answer) as url:
        assert [job.version for job in connect(url).jobs.events("j")] == [1, 2, 3]
    assert last_ids == [None, "2"]


def test_a_file_is_kept_while_the_service_has_the_same(node: Node, connect: Connect, tmp_path: Path) -> None:
    made = create_empty(node.http, "mine")
    upload(node.http, made["id"], [picture(1)])
    fox, path = connect(node.http.base_url), tmp_path / "mine.zip"
    fox.datasets.archive(made["id"], path, only_if_changed=True)
    etag, written = (tmp_path / "mine.zip.etag").read_text(), path.stat().st_ino
    fox.datasets.archive(made["id"], path, only_if_changed=True)
    assert path.stat().st_ino == written
    upload(node.http, made["id"], [picture(2)])
    fox.datasets.archive(made["id"], path, only_if_changed=True)
    assert path.read_bytes() == node.http.get(f"/datasets/{made['id']}/archive.zip").content
    assert (tmp_path / "mine.zip.etag").read_text() != etag
    path.unlink()  # its mark alone is no file
    assert fox.datasets.archive(made["id"], path, only_if_changed=True).stat().st_size > 0
    assert sorted(found.name for found in tmp_path.glob("mine.zip*")) == ["mine.zip", "mine.zip.etag"]


def test_a_dataset_is_waited_for_by_its_id_or_name(node: Node, connect: Connect, database_url: str) -> None:
    fox = connect(node.http.base_url)
    assert fox.datasets.wait(create_empty(node.http, "mine")["id"]).status == "empty"
    made = fox.datasets.create(**RECIPE)
    fox.jobs.cancel(made.job_id)
    with pytest.raises(JobFailed, match="cancelled"):
        fox.datasets.wait(made.id)
    retried = fox.jobs.retry(made.job_id)
    end(database_url, retried.id)
    seen: list[tuple[int, int, str]] = []
    assert fox.datasets.wait(made.name, on_progress=lambda *each: seen.append(each)).id == made.id
    assert seen[-1] == (4, 4, "images")


def test_a_folder_that_is_missing_is_an_error_of_the_file(node: Node, connect: Connect) -> None:
    made = create_empty(node.http, "mine")
    upload(node.http, made["id"], [picture(1)])
    with pytest.raises(OSError, match="No such file"):
        connect(node.http.base_url).datasets.archive(made["id"], "/nowhere/mine.zip")


def test_an_answer_of_another_service_is_named_so(connect: Connect) -> None:
    def other(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>")

    fox = Foxhound("http://a", transport=httpx.MockTransport(other))
    with pytest.raises(FoxhoundError, match="Check that the URL is that of a Foxhound service"):
        fox.capabilities()
