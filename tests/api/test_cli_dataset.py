"""`foxhound dataset` against a served node; no worker runs, what it would do is done to the rows."""

import io
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.db.models import Dataset
from app.db.session import Database
from app.jobs import record
from foxhound_client.models import DatasetRead
from foxhound_client.sending import Delays
from testing.answers import a_dataset, a_job, a_plan, a_planned_image
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import create_empty, fill, picture, upload

CLASSES = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
DATASET = {"name": "fox-dog", "classes": CLASSES, "train_per_class": 50, "test_per_class": 0}

JSON = {"Content-Type": "application/json"}

ROOT = Path(__file__).parents[2]
Sleep = Callable[[float], None]


def no_sleep(_: float) -> None:
    """Waits for nothing: what a test waits for is there already, or never comes."""


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """SQLite alone: the command line sees no database."""
    path = tmp_path / "foxhound.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def db(node: Node) -> Iterator[Database]:
    db = Database(node.settings.resolved_database_url)
    yield db
    db.close()


def dataset_command(url: object, *args: str, body: object = None, sleep: Sleep = no_sleep) -> Result:
    """Run `foxhound dataset` with those arguments and without waiting."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    result = CliRunner().invoke(app, ["dataset", *args, "--server", str(url)], input=text, obj=sleep)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def create(node: Node, *args: str, body: object = DATASET, sleep: Sleep = no_sleep) -> Result:
    return dataset_command(node.http.base_url, "create", "-", *args, body=body, sleep=sleep)


def change(db: Database, job_id: str, *, done: int = 0, ends: bool = False, dataset_status: str = "ready") -> None:
    """Do with a job's row what a worker would."""

    def on_end(session, job) -> None:
        session.get_one(Dataset, job.spec["dataset_id"]).status = dataset_status

    with db.transaction() as session:
        record.begin(session, job_id)
        if done:
            record.advance(session, job_id, done)
        if ends:
            record.finish(session, job_id, on_end, completed=True, result={})


@contextmanager
def scripted(answer: Callable[[BaseHTTPRequestHandler, list[str]], None]) -> Iterator[str]:
    """Serve what `answer` writes, given the paths asked for so far; gives the address."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer(self, asked)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, document: object, **headers: str) -> None:
    data = json.dumps(document).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


# Create.


def test_the_same_command_makes_one_dataset_and_says_under_which_key(node: Node) -> None:
    first, second = create(node, "--json"), create(node, "--json")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert json.loads(first.stdout)["id"] == json.loads(second.stdout)["id"]
    assert first.stderr == second.stderr
    assert first.stderr.startswith("Idempotency-Key foxhound-")
    assert len(node.http.get("/datasets").json()["items"]) == 1
    other = create(node, body={**DATASET, "name": "another"})
    assert "is accepted" in other.stdout
    assert f"foxhound dataset follow {node.http.get('/datasets').json()['items'][0]['id']} --server" in other.stdout


@pytest.mark.parametrize("changes", [{}, {"seed": 7}, {"preset": "diverse"}, {"filter": {}}])
def test_a_dataset_whose_key_is_forgotten_is_known_by_its_recipe(node: Node, changes: dict) -> None:
    body = {**DATASET, **changes}
    made = json.loads(create(node, "--json", "--idempotency-key", "yesterday", body=body).stdout)
    again = create(node, "--json", body=body)
    assert (again.exit_code, json.loads(again.stdout)["id"]) == (0, made["id"])
    others = [
        {"seed": 1 + made["seed"]},
        {"test_per_class": 1},
        {"classes": [{**CLASSES[0], "prompts": ["x"]}, CLASSES[1]]},
    ]
    for other in others:
        differs = create(node, body={**body, **other})
        assert differs.exit_code == 1
        assert "dataset_name_taken" in differs.stderr


def test_a_dry_run_of_what_is_there_says_so(node: Node) -> None:
    made = json.loads(create(node, "--json").stdout)
    told = create(node, "--dry-run")
    assert (told.exit_code, made["id"] in told.stdout) == (0, True)
    assert "fox-dog exists already, queued, 0 of 100 images" in told.stdout
    assert json.loads(create(node, "--dry-run", "--json").stdout)["id"] == made["id"]
    nulls = {**DATASET, "seed": None, "filter": None, "classes": [{**one, "negative_prompt": None} for one in CLASSES]}
    assert create(node, "--dry-run", body=nulls).exit_code == 0
    differs = create(node, "--dry-run", body={**DATASET, "seed": 1 + made["seed"]})
    assert (differs.exit_code, "dataset_name_taken" in differs.stderr) == (1, True)
    assert len(node.http.get("/datasets").json()["items"]) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_recipe_file_may_have_any_encoding_that_the_service_reads(node: Node, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "recipe.json"
    text = json.dumps({**DATASET, "classes": [*CLASSES, {"name": "лиса", "prompts": ["лиса"]}]}, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    made = dataset_command(node.http.base_url, "create", str(path), "--json")
    assert made.exit_code == 0, made.stderr
    assert [entry["name"] for entry in json.loads(made.stdout)["classes"]] == ["fox", "dog", "лиса"]
    assert node.http.post("/datasets", content=text.encode(encoding), headers=JSON).status_code in (400, 409)


def test_a_recipe_in_another_encoding_is_named_so() -> None:
    told = dataset_command("http://127.0.0.1:9", "create", "-", body='{"name": "café"}'.encode("latin-1"))
    assert (told.exit_code, "is not UTF-8 text. Save it as UTF-8." in told.stderr) == (2, True)


def test_what_was_deleted_is_made_again(node: Node) -> None:
    for _ in range(3):
        made = json.loads(create(node, "--json").stdout)
        assert node.http.get(f"/datasets/{made['id']}").status_code == 200
        node.http.post(f"/jobs/{made['job_id']}/cancel")
        assert node.http.delete(f"/datasets/{made['id']}").status_code == 204
    create(node, "--idempotency-key", "mine", body={**DATASET, "train_per_class": 0})
    made = node.http.get("/datasets").json()["items"][0]
    node.http.delete(f"/datasets/{made['id']}")
    ghost = create(node, "--idempotency-key", "mine", body={**DATASET, "train_per_class": 0})
    assert (ghost.exit_code, "has been deleted" in ghost.stderr) == (1, True)


def test_problems_are_told_with_their_pointers(node: Node) -> None:
    wrong = create(node, body={**DATASET, "train_per_class": -1, "oddity": "\x1b[31m"})
    assert wrong.exit_code == 1
    assert "#/train_per_class: " in wrong.stderr
    assert "#/oddity: This field does not exist" in wrong.stderr
    assert "\x1b" not in wrong.output
    surrogate = create(node, body='{"name": "\\ud800"}')
    assert (surrogate.exit_code, "#/name" in surrogate.stderr) == (1, True)
    reused = [create(node, "--idempotency-key", "k", body={**DATASET, "name": name}) for name in ("a", "b")]
    assert [one.exit_code for one in reused] == [0, 1]
    assert "idempotency_key_reused" in reused[1].stderr


@pytest.mark.parametrize("body", ["", "{", "[1]", '{"seed": NaN}', "[" * 100_000])
def test_what_is_no_json_object_is_wrong_usage(body: str) -> None:
    assert dataset_command("http://127.0.0.1:9", "create", "-", body=body).exit_code == 2


@pytest.mark.parametrize(
    "args",
    [
        ("create", "no-such-file.json"),
        ("create", "-", "--idempotency-key", "two words"),
        ("export", "x", "-o", "no-such-folder/out.zip"),
        ("list", "--limit", "0"),
        ("frobnicate",),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(args: tuple[str, ...]) -> None:
    assert dataset_command("http://127.0.0.1:9", *args, body={}).exit_code == 2
    assert dataset_command("no url", "list").exit_code == 2


def test_a_dry_run_is_passed_on_and_shown() -> None:
    samples = [a_planned_image()]
    plan = a_plan(num_images=10_000, estimated_seconds=36_000.0, estimate="on this", samples=samples)
    keys = []

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        keys.append(handler.headers["idempotency-key"])
        reply(handler, 200 if asked[-1] == "/datasets?dry_run=true" else 500, plan)

    with scripted(answer) as url:
        shown = dataset_command(url, "create", "-", "--dry-run", body=DATASET)
        assert shown.stdout == "n: 10000 images, about 10.0 h\non this\n  train/fox 0: a fox\n"
        assert json.loads(dataset_command(url, "create", "-", "--dry-run", "--json", body=DATASET).stdout) == plan
    assert keys == [None, None]


# Extend.


def test_a_dataset_is_extended_by_its_name_once_it_is_made(node: Node, db: Database) -> None:
    made = json.loads(create(node, "--json").stdout)
    url, more = node.http.base_url, ("fox-dog", "--images-per-class", "10")
    early = dataset_command(url, "extend", *more)
    assert (early.exit_code, "dataset_in_use" in early.stderr) == (1, True)
    change(db, made["job_id"], done=100, ends=True)
    held_out = ("--test-images-per-class", "2", "--validation-images-per-class", "3")
    planned = dataset_command(url, "extend", *more, *held_out, "--dry-run")
    assert (planned.exit_code, planned.stdout.splitlines()[0]) == (0, "fox-dog: 30 images")
    told = dataset_command(url, "extend", *more)
    assert told.exit_code == 0, told.output
    assert "fox-dog will have 120 generated images" in told.stdout
    assert f"foxhound dataset follow {made['id']}" in told.stdout
    read = node.http.get(f"/datasets/{made['id']}").json()
    assert (read["train_per_class"], read["status"], read["job_id"] != made["job_id"]) == (60, "queued", True)
    change(db, read["job_id"], done=20, ends=True)
    again = json.loads(dataset_command(url, "extend", *more, "--json").stdout)
    assert again["train_per_class"] == 70


def test_one_key_extends_once_and_nothing_is_no_extension(node: Node, db: Database) -> None:
    made = json.loads(create(node, "--json").stdout)
    change(db, made["job_id"], ends=True)
    command = ("extend", made["id"], "--images-per-class", "1", "--idempotency-key", "mine", "--json")
    first, second = (dataset_command(node.http.base_url, *command) for _ in range(2))
    assert first.stdout == second.stdout
    nothing = dataset_command(node.http.base_url, "extend", made["id"])
    assert (nothing.exit_code, "must be above 0" in nothing.stderr) == (1, True)


# A service that is away.


def test_nobody_there_is_told_after_bounded_retries() -> None:
    slept: list[float] = []
    for args in (("list",), ("create", "-"), ("follow", "x"), ("pause", "x"), ("resume", "x")):
        slept.clear()
        gone = dataset_command("http://127.0.0.1:9", *args, "--patience", "20", body=DATASET, sleep=slept.append)
        assert gone.exit_code == 1, gone.output
        assert slept == [0.5, 1, 2, 4, 8]
        assert "No answer from http://127.0.0.1:9" in gone.stderr


def test_nobody_there_is_told_at_once_in_one_line() -> None:
    gone = dataset_command("http://127.0.0.1:9", "list")
    line = "No answer from http://127.0.0.1:9: Connection refused. See whether the service runs and whether this is "
    assert (gone.exit_code, gone.stdout, gone.stderr) == (1, "", f"{line}its URL.\n")


def test_a_busy_service_is_asked_again_when_it_says_so() -> None:
    slept: list[float] = []

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        if len(asked) < 4:
            reply(handler, 503, {"title": "Queue full", "detail": "later", "code": "queue_full"}, Retry_After="30")
        else:
            reply(handler, 200, {"items": [], "next_cursor": None, "total": 0})

    with scripted(answer) as url:
        assert dataset_command(url, "list", "--json", sleep=slept.append).stdout == "[]\n"
    assert slept == [30, 30, 30]


def test_delays_begin_anew_after_a_success() -> None:
    delays = Delays(2.0)
    assert [delays.next(), delays.next(), delays.next()] == [0.5, 1, None]
    delays.reset()
    assert delays.next() == 0.5


def test_an_answer_that_is_not_ours_is_no_traceback() -> None:
    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        reply(handler, 418 if len(asked) == 1 else 200, ["?"])

    with scripted(answer) as url:
        for words in ("418", "no JSON object"):
            result = dataset_command(url, "list")
            assert (result.exit_code, words in result.stderr) == (1, True)


# Follow.


def test_follow_tells_each_state_and_ends_with_the_dataset(node: Node, db: Database) -> None:
    made = node.http.post("/datasets", json=DATASET).json()
    change(db, made["job_id"], done=40)
    change(db, made["job_id"], done=60, ends=True)
    lines = dataset_command(node.http.base_url, "follow", made["id"], "--json")
    read = node.http.get(f"/datasets/{made['id']}").content
    assert DatasetRead.model_validate_json(lines.stdout) == DatasetRead.model_validate_json(read)
    assert lines.stderr == "succeeded: 100 of 100 images\n"
    by_name = dataset_command(node.http.base_url, "follow", "fox-dog")
    assert by_name.exit_code == 0
    assert by_name.stdout == "succeeded: 100 of 100 images\nfox-dog is ready: 0 images\n"


def test_a_terminal_gets_a_bar(node: Node, db: Database) -> None:
    made = node.http.post("/datasets", json=DATASET).json()
    change(db, made["job_id"], done=100, ends=True)
    command = ["dataset", "follow", made["id"], "--server", str(node.http.base_url)]
    shown = CliRunner(env={"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}).invoke(app, command, obj=no_sleep)
    assert shown.exit_code == 0
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown.stdout
    assert "100 of 100 images" in shown.stdout


@pytest.mark.parametrize("status", ["incomplete", "failed", "cancelled"])
def test_follow_ends_with_1_if_the_dataset_is_not_whole(node: Node, db: Database, status: str) -> None:
    made = node.http.post("/datasets", json=DATASET).json()
    change(db, made["job_id"], ends=True, dataset_status=status)
    assert dataset_command(node.http.base_url, "follow", made["id"]).exit_code == 1
    unknown = dataset_command(node.http.base_url, "follow", "no-such")
    assert (unknown.exit_code, "There is no dataset with this id or name." in unknown.stderr) == (1, True)


def test_follow_goes_on_after_the_service_was_stopped_and_started(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path / "data", database_url)
    db = Database(database_url)
    with ExitStack() as second, ExitStack() as first:
        node = first.enter_context(serve(settings, FakeModels()))
        url, port = node.http.base_url, node.http.base_url.port or 80
        made = node.http.post("/datasets", json=DATASET).json()
        node.begin_stop()
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 1:
                first.close()
                change(db, made["job_id"], done=40)
            elif len(waits) == 3:
                change(db, made["job_id"], done=60, ends=True)
                second.enter_context(serve(settings, FakeModels(), port))

        followed = dataset_command(url, "follow", made["id"], "--json", sleep=sleep)
    db.close()
    assert followed.exit_code == 0, followed.output
    assert json.loads(followed.stdout)["status"] == "ready"
    assert followed.stderr.splitlines()[-1] == "succeeded: 100 of 100 images"


def test_events_are_taken_up_behind_the_last_one_seen_and_polling_fills_in() -> None:
    last_ids: list[str | None] = []
    polled = iter([a_job(2, 100), a_job(3, 200), *2 * [a_job(5, 400, "succeeded")]])

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        if asked[-1] == "/jobs/j":
            reply(handler, 200, next(polled))
        elif asked[-1] != "/jobs/j/events":
            reply(handler, 200, a_dataset(num_images=400))
        else:
            last_ids.append(handler.headers["last-event-id"])
            if len(last_ids) == 2:
                reply(handler, 503, {"title": "t", "detail": "too many", "code": "too_many_streams"})
                return
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.end_headers()
            event = json.dumps(a_job(1, 50) if len(last_ids) == 1 else a_job(4, 300))
            handler.wfile.write(f": ping\n\nid: 9\ndata: {event}\n\ndata: {{cut".encode())

    with scripted(answer) as url:
        lines = dataset_command(url, "follow", "d")
    assert lines.stdout.splitlines() == [
        "running: 50 of 400 images, 100.0 a minute, 4 min left",
        "running: 100 of 400 images, 100.0 a minute, 3 min left",
        "running: 200 of 400 images, 100.0 a minute, 2 min left",
        "running: 300 of 400 images, 100.0 a minute, < 2 min left",
        "succeeded: 400 of 400 images, 100.0 a minute, < 2 min left",
        "n is ready: 400 images",
    ]
    assert last_ids == [None, "2", "3"]


def test_ctrl_c_leaves_the_job_and_says_how_to_follow_it_again() -> None:
    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        if asked[-1].startswith("/jobs/j"):
            reply(handler, 200, a_job(1, 1))
        else:
            reply(handler, 202, a_dataset(status="generating", num_images=1))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with scripted(answer) as url:
        left = dataset_command(url, "create", "-", "--follow", body=DATASET, sleep=interrupt)
        assert left.exit_code == 130
        assert f"foxhound dataset follow d --server {url}" in left.stderr


# Pause, resume, list.


def test_pause_and_resume(node: Node) -> None:
    url = node.http.base_url
    made = node.http.post("/datasets", json=DATASET).json()
    job = f"/jobs/{made['job_id']}"
    assert "is paused" in dataset_command(url, "pause", "fox-dog").stdout
    assert node.http.get(job).json()["status"] == "paused"
    assert "is queued" in dataset_command(url, "resume", made["id"]).stdout
    assert node.http.get(job).json()["status"] == "queued"
    node.http.post(f"{job}/cancel")
    retried = dataset_command(url, "resume", "fox-dog")
    job_id = node.http.get(f"/datasets/{made['id']}").json()["job_id"]
    assert (retried.exit_code, f"The job {job_id} is queued" in retried.stdout) == (0, True)
    assert node.http.get(f"/jobs/{job_id}").json()["retry_of"] == made["job_id"]
    assert dataset_command(url, "resume", "fox-dog").exit_code == 0
    assert len(node.http.get("/jobs").json()["items"]) == 2
    create_empty(node.http, "uploads")
    for command in ("pause", "resume"):
        assert "its images are uploaded" in dataset_command(url, command, "uploads").stdout


def test_list_shows_as_many_as_asked_for(node: Node) -> None:
    for number in range(3):
        create_empty(node.http, f"set-{number}")
    url = node.http.base_url
    listed = json.loads(dataset_command(url, "list", "--json", "--limit", "2").stdout)
    assert [one["name"] for one in listed] == ["set-2", "set-1"]
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["dataset", "list", "--server", str(url)]).stdout
    assert all(f"set-{number}" in shown for number in range(3))


# Export.


def test_an_export_is_the_archive_and_goes_on_where_it_was(node: Node, tmp_path: Path) -> None:
    made = create_empty(node.http)
    fill(node.http, made["id"])
    archive = node.http.get(f"/datasets/{made['id']}/archive.zip")
    target = tmp_path / "out.zip"
    part, mark = tmp_path / "out.zip.part", tmp_path / "out.zip.part.etag"
    for there, etag in (
        (b"", ""),
        (archive.content[:1_000], archive.headers["etag"]),
        (b"other bytes", '"another"'),
        (b"no mark", None),
        (archive.content, archive.headers["etag"]),
        (archive.content + b"more", archive.headers["etag"]),
    ):
        part.write_bytes(there)
        mark.unlink(missing_ok=True)
        if etag is not None:
            mark.write_text(etag)
        exported = dataset_command(node.http.base_url, "export", "fox-dog", "-o", str(target))
        assert exported.exit_code == 0, exported.output
        assert target.read_bytes() == archive.content
        assert sorted(path.name for path in tmp_path.glob("out.zip*")) == ["out.zip"]


def test_what_went_wrong_in_the_part_is_never_the_result(node: Node, tmp_path: Path) -> None:
    made = create_empty(node.http)
    fill(node.http, made["id"])
    archive = node.http.get(f"/datasets/{made['id']}/archive.zip")
    target = tmp_path / "out.zip"
    target.write_text("before")
    wrong = bytearray(archive.content[:1_000])
    wrong[500] ^= 255
    (tmp_path / "out.zip.part").write_bytes(wrong)
    (tmp_path / "out.zip.part.etag").write_text(archive.headers["etag"])
    args = ("export", made["id"], "-o", str(target))
    broken = dataset_command(node.http.base_url, *args)
    assert (broken.exit_code, target.read_text()) == (1, "before")
    assert dataset_command(node.http.base_url, *args).exit_code == 0
    assert target.read_bytes() == archive.content


def an_archive(seed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("noise", os.urandom(100_000) if seed == 0 else bytes([seed]) * 100_000)
    return buffer.getvalue()


def test_a_download_that_breaks_off_again_and_again_or_changes_ends_whole(tmp_path: Path) -> None:
    old, new = an_archive(0), an_archive(1)
    ranges: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        if not asked[-1].endswith("archive.zip"):
            reply(handler, 200, a_dataset())
            return
        ranges.append(handler.headers["range"])
        data, etag = (old, '"old"') if len(ranges) < 4 else (new, '"new"')
        start = 0
        if handler.headers["if-range"] == etag:
            start = int(str(ranges[-1]).removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + 30_000] if len(ranges) < 5 else data[start:])

    with scripted(answer) as url:
        exported = dataset_command(url, "export", "d", "-o", str(tmp_path / "out.zip"), "--patience", "1")
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "out.zip").read_bytes() == new
    assert ranges == [None, "bytes=29999-", "bytes=59998-", "bytes=89997-", "bytes=29999-"]
    assert "The file has changed." in exported.stderr


def test_an_export_of_what_is_in_the_making_is_refused(node: Node, tmp_path: Path) -> None:
    made = node.http.post("/datasets", json=DATASET).json()
    refused = dataset_command(node.http.base_url, "export", made["id"], "-o", str(tmp_path / "out.zip"))
    assert (refused.exit_code, "dataset_in_use" in refused.stderr) == (1, True)
    assert not (tmp_path / "out.zip").exists()
    upload(node.http, create_empty(node.http, "other")["id"], [picture(1)])


# The same with a shell and curl.


def test_overnight_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    data, keys, ranges = an_archive(0), [], []

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        if asked[-1] == "/datasets?dry_run=true":
            reply(handler, 200, {"name": "n", "num_images": 20, "estimated_seconds": 3.5})
        elif asked[-1] == "/datasets":
            keys.append(handler.headers["idempotency-key"])
            reply(handler, 202, {"id": "d", "name": "overnight", "status": "queued"})
        elif asked[-1] == "/datasets/d":
            is_first = asked.count("/datasets/d") == 1
            progress = {"done": 10 if is_first else 20, "total": 20, "unit": "images"}
            reply(
                handler,
                503 if asked.count("/datasets/d") == 2 else 200,
                {"status": "generating" if is_first else "ready", "progress": progress},
            )
        else:
            asked_range = handler.headers["range"]
            ranges.append(asked_range)
            first, _, last = (asked_range or "bytes=0-").removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None]
            handler.send_response(206 if asked_range else 200)
            handler.send_header("ETag", '"e"')
            handler.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
            handler.send_header("Content-Length", str(len(part)))
            handler.end_headers()
            handler.wfile.write(part[:30_000])

    with scripted(answer) as url:
        env = {"PATH": os.environ["PATH"], "BASE_URL": url, "POLL_S": "0"}
        command = ["sh", str(ROOT / "examples" / "overnight.sh")]
        for patience, status in (("0", 3), ("2", 0)):
            ended = subprocess.run(
                command, env={**env, "PATIENCE_S": patience}, cwd=tmp_path, capture_output=True, text=True
            )
            assert ended.returncode == status, ended
    assert (tmp_path / "overnight.zip").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overnight.zip", "overnight.zip.etag"]
    assert len(set(keys)) == 1
    assert len(keys) == 2
    assert ranges[:2] == ["bytes=0-0", None]


@pytest.mark.parametrize(("script", "name"), [("overnight.sh", "night.1"), ("fox_or_dog.sh", "night.1")])
def test_a_name_that_is_taken_is_found_on_any_page_of_the_list(tmp_path: Path, script: str, name: str) -> None:
    """The service tells no id with the 409, as one does where two requests take a name at once."""

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        if handler.path == "/datasets":
            reply(handler, 409, {"code": "dataset_name_taken"})
        elif handler.path.startswith("/datasets?limit=100"):
            page = int(handler.path.partition("&cursor=")[2] or 0)
            items = [{"id": f"no-{page}", "name": "nightx1"}, {"id": "d", "name": name if page == 2 else "other"}]
            reply(handler, 200, {"items": items[page % 2 :], "next_cursor": str(page + 1) if page < 3 else None})
        elif handler.path == "/generate":
            reply(handler, 200, "a picture", X_Foxhound_Image_Id="i")
        elif handler.path == "/datasets/d":
            reply(handler, 200, {"status": "failed", "done": 1, "total": 4})
        else:
            reply(handler, 200, {"predictions": []})

    with scripted(answer) as url:
        env = {"PATH": os.environ["PATH"], "BASE_URL": url, "NAME": name, "POLL_S": "0"}
        command = ["sh", str(ROOT / "examples" / script), name]
        ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert f"a dataset {name} is there already; going on with it" in ended.stdout
    assert "failed" in ended.stderr


def test_fox_or_dog_run_twice_makes_nothing_twice(tmp_path: Path) -> None:
    keys: dict[str, list[str]] = {"/datasets": [], "/train-jobs": []}

    def accept(handler: BaseHTTPRequestHandler) -> None:
        """Accept twice, as for a replayed key; the third time the key is forgotten, and the name is taken."""
        seen = keys[handler.path]
        seen.append(handler.headers["idempotency-key"])
        code = {"/datasets": "dataset_name_taken", "/train-jobs": "model_name_taken"}[handler.path]
        reply(handler, 202, {"id": "d"}) if len(seen) < 3 else reply(handler, 409, {"code": code})

    def answer(handler: BaseHTTPRequestHandler, asked: list[str]) -> None:
        best = {"label": "dog" if asked.count("/classify") % 3 == 0 else "fox", "probability": 0.9}
        if handler.path in keys:
            accept(handler)
        elif handler.path == "/generate":
            reply(handler, 200, "a picture", X_Foxhound_Image_Id="i")
        elif handler.path in ("/classify", "/clip-score"):
            reply(handler, 200, {"predictions": [best]})
        elif handler.path == "/datasets?limit=100":
            classes = [{"name": "foxes"}]
            items = [{"id": name, "name": "foxes" + name, "classes": classes} for name in ("no", "")]
            reply(handler, 200, {"items": [items[0], {**items[1], "id": "d"}]})
        else:
            reply(handler, 200, {"status": "ready", "done": 4, "total": 4})

    with scripted(answer) as url:
        command = ["sh", str(ROOT / "examples" / "fox_or_dog.sh"), "foxes"]
        for _ in range(3):
            env = {"PATH": os.environ["PATH"], "BASE_URL": url}
            ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
            assert ended.returncode == 0, ended
    assert ended.stdout.count("is there already; going on with it") == 2
    assert [len(set(seen)) for seen in keys.values()] == [1, 1]
    assert set(keys["/datasets"]) != set(keys["/train-jobs"])
