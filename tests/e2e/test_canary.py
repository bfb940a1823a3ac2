"""What users write stands in no log and no metric: every route and every kind of job, in right and in wrong requests.

The API process is served here with our handler, at the lowest severity; the worker and its engine are processes.
"""

import io
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.db.models import Job
from app.db.session import Database
from app.logs.setup import LogFormat, log_handler
from testing.fake_models import QUOTED, FakeModels
from testing.node import Node, make_settings, serve
from testing.node_process import NodeProcesses, nodes
from testing.pictures import wait_for_end
from testing.uploads import picture

# Found whatever the case, and whatever is escaped around it.
CANARY, WORD = "a Fox of Mrs. Secretary \u2028 \x1b[2J\r\nFORGED secretary", "secretary"
NAME = "the-secretary"
SENTENCE = f"a fox of Mrs. {WORD}"
# Each of them may be refused before anything else is read.
REFUSED_HEADERS = [
    {"Authorization": f"Bearer fx_{WORD}"},
    {"X-API-Key": f"fx_{WORD}"},
    {"Authorization": f"Basic {WORD}"},
    {"Origin": f"http://{WORD}", "Sec-Fetch-Site": "cross-site"},
    {"Host": f"{WORD}.example"},
    {"Content-Encoding": WORD},
]
HEADERS = {
    "X-Request-Id": f"a {WORD}",
    "Cookie": f"name={WORD}",
    "User-Agent": WORD,
    "Referer": f"http://{WORD}/",
    "X-Foxhound-Job": f"a {WORD}",
    "traceparent": WORD,
    f"X-{WORD}": WORD,
}
CLASSES = [
    {"name": f"{SENTENCE} {k}", "prompts": [f"{SENTENCE} {k} {{word}}"], "negative_prompt": SENTENCE} for k in (1, 2)
]
DATASET = {"name": NAME, "classes": CLASSES, "train_per_class": 3, "test_per_class": 2, "seed": 1}
DATASET |= {"generation": {"num_inference_steps": 1}, "variables": {"word": [SENTENCE]}}


class House:
    """A node whose worker and engine are processes, and what all of them log."""

    def __init__(self, front: Node, db: Database, back: NodeProcesses, stream: io.StringIO) -> None:
        self.http = front.http
        self.db = db
        self.back = back
        self._stream = stream

    def end(self, accepted: httpx.Response) -> Job:
        assert accepted.status_code == 202, accepted.text
        body = accepted.json()
        return wait_for_end(self.db, body.get("job_id") or body["id"])

    def logs(self) -> dict[str, str]:
        return {"front": self._stream.getvalue(), **{name: self.back.log(name) for name in ("api", "worker")}}


@pytest.fixture
def log_format(database_url: str) -> LogFormat:
    """Each format once, on one of the databases."""
    return "json" if database_url.startswith("sqlite") else "text"


@pytest.fixture
def house(database_url: str, db: Database, tmp_path: Path, log_format: LogFormat) -> Iterator[House]:
    settings = make_settings(tmp_path / "data", database_url, run_dir=tmp_path / "front")
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = log_handler(log_format, "api", stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logs: dict[str, Any] = {"log_format": log_format, "log_level": "debug", "step_s": 0.0}
    with serve(settings, FakeModels()) as front, nodes(tmp_path, settings.data_dir, database_url, **logs) as start:
        yield House(front, db, start("back"), stream)
    root.removeHandler(handler)
    root.setLevel(level)


def test_no_log_and_no_metric_has_a_word_of_a_user(house: House, log_format: LogFormat) -> None:
    known = do_everything_right(house)
    do_everything_wrong(house, known)
    fail_inside(house)
    delete_all(house, known)
    logs = house.logs()
    found = {name: re.findall(f".*{WORD}.*", log, re.IGNORECASE)[:3] for name, log in logs.items()}
    assert found == {"front": [], "api": [], "worker": []}
    assert WORD not in house.http.get("/metrics").text.lower()
    for name, log in logs.items():
        check_form(log, log_format, name)
    # Each has said what went wrong, all the same.
    assert "ValueError (text withheld)" in logs["api"]
    assert "IntegrityError" in logs["worker"]
    assert refused_statuses(house.http) >= {"400", "404", "409", "413", "415", "422", "431", "500"}


def test_a_job_logs_the_id_of_the_request_that_made_it(house: House, log_format: LogFormat) -> None:
    headers = {"Prefer": "respond-async", "X-Request-Id": "request-of-the-job"}
    failing = {"prompt": f"{SENTENCE} {QUOTED}", "num_inference_steps": 1}
    accepted = house.http.post("/generate", json=failing, headers=headers)
    job = house.end(accepted)
    read = house.http.get(f"/jobs/{job.id}").json()
    assert (job.status, job.request_id, read["request_id"]) == ("failed", "request-of-the-job", "request-of-the-job")
    refuse_generations(house.db)
    broken = house.end(house.http.post("/generate", json={**failing, "prompt": "a fox"}, headers=headers))
    for name, other in (("api", job), ("worker", broken)):
        lines = [line for line in house.logs()[name].splitlines() if other.id in line]
        assert lines
        assert all("request-of-the-job" in line for line in lines)


def do_everything_right(house: House) -> dict[str, str]:
    """Use every route as it is meant, with the canary wherever a user may write; return the ids by name."""
    http, body = house.http, {"prompt": SENTENCE, "negative_prompt": SENTENCE, "num_inference_steps": 1}
    made = http.post("/generate", json={**body, "labels": [SENTENCE, "other"]}).json()
    assert http.post("/generate", json=body, headers={"Accept": "text/event-stream"}).status_code == 200
    assert http.post("/generate", json=body, headers={"Accept": "image/png"}).status_code == 200
    key = {"Prefer": "respond-async", "Idempotency-Key": f"key-{WORD}"}
    assert house.end(http.post("/generate", json=body, headers=key)).status == "succeeded"
    dataset = http.post("/datasets", json=DATASET)
    assert house.end(dataset).status == "succeeded"
    dataset_id = dataset.json()["id"]
    form = {"class_name": str(CLASSES[0]["name"]), "split": "train"}
    files = [("files", (f"{WORD}.png", picture(seed), f"image/{WORD}")) for seed in (1, 2)]
    assert http.post(f"/datasets/{dataset_id}/images", data=form, files=files).status_code == 201
    assert house.end(http.post(f"/datasets/{dataset_id}/extend", json={"train_per_class": 4})).status == "succeeded"
    assert house.end(http.post(f"/datasets/{dataset_id}/repair")).status == "succeeded"
    training = http.post("/train-jobs", json={"dataset_id": dataset_id, "epochs": 2, "name": f"{NAME}-model"})
    trained = house.end(training)
    assert trained.status == "succeeded", trained.error
    evaluation = house.end(http.post(f"/models/{trained.id}/evaluations", json={"dataset_id": dataset_id}))
    assert evaluation.status == "succeeded", evaluation.error
    image = {"image": (f"{WORD}.png", picture(3))}
    assert http.post("/classify", files=image, data={"model": f"{NAME}-model"}).status_code == 200
    assert http.post("/clip-score", files=image, data={"labels": [SENTENCE, "other"]}).status_code == 200
    ids = {"dataset_id": dataset_id, "job_id": trained.id, "model_id": trained.id, "index": "0", "split": "train"}
    ids |= {
        "generation_id": made["id"],
        "image_id": made["images"][0]["id"],
        "picture": "accuracy",
        "code": "not_found",
    }
    ids |= {"evaluation_id": str((evaluation.result or {})["evaluation_id"])}
    statuses = [http.get(path).status_code for path in paths_of(http, "get", ids)]
    assert statuses.count(200) > len(statuses) - 4
    return ids


def do_everything_wrong(house: House, ids: dict[str, str]) -> None:
    """Send every route what it refuses: in paths, queries, headers and bodies of every form."""
    http = house.http
    words = dict.fromkeys(ids, "%0d%0a".join(["x", WORD]))
    for method, operations in operations_by_method(http).items():
        for path, parameters in operations:
            safe = dict.fromkeys(ids, "0") if method == "delete" else ids
            for values in (words, safe):
                url = filled(path, values)
                for query in ({WORD: SENTENCE}, dict.fromkeys(parameters, SENTENCE)):
                    http.request(method, url, params=query)
                for headers in REFUSED_HEADERS:
                    http.request(method, url, headers=headers)
                is_whole = method == "post" and values is safe
                for content in bodies() if is_whole else bodies()[:2]:
                    answer = http.request(
                        method, url, **{**content, "headers": {**HEADERS, **content.get("headers", {})}}
                    )
                    assert answer.status_code < 600
    http.request("POST", f"/{WORD}", json={WORD: WORD})
    http.request(WORD.upper(), "/generate")
    for raw in (f"{WORD} / HTTP/1.1\r\n\r\n", f"GET /{WORD}\x00 HTTP/1.1\r\n{WORD}: \x01{WORD}\r\n\r\n"):
        send_raw(http, raw.encode())
    send_raw(http, f"POST /generate HTTP/1.1\r\nHost: {WORD}\r\nTransfer-Encoding: {WORD}\r\n\r\n".encode())
    send_raw(http, b"GET / HTTP/1.1\r\n" + f"X: {WORD}".encode() * 20_000)


def bodies() -> list[dict[str, Any]]:
    """Bodies that no route accepts as they are."""
    as_json = {"Content-Type": "application/json"}
    return [
        {"json": {WORD: CANARY, "prompt": {WORD: CANARY}, "classes": {WORD: [CANARY]}, "name": CANARY}},
        {
            "json": {
                "prompt": CANARY,
                "labels": [CANARY, CANARY],
                "width": CANARY,
                "dataset_id": CANARY,
                "image_id": CANARY,
            }
        },
        {"json": {**DATASET, "name": CANARY, "generation": CANARY, "train_per_class": CANARY}},
        {"json": [CANARY]},
        {"content": f'{{"prompt": "{SENTENCE}', "headers": as_json},
        {"content": json.dumps({"prompt": "\ud800" + SENTENCE}), "headers": as_json},
        {"content": json.dumps({"prompt": SENTENCE * 200_000}), "headers": as_json},
        {"content": SENTENCE, "headers": {"Content-Type": f"text/{WORD}"}},
        {"content": SENTENCE, "headers": {"Content-Type": f"multipart/form-data; boundary={WORD}"}},
        {"files": {"image": (f"{WORD}.png", CANARY.encode()), WORD: (WORD, b"")}, "data": {WORD: CANARY}},
        {"files": {"files": (f"{WORD}.png", picture(9)[:90])}, "data": {"class_name": SENTENCE, "split": WORD}},
    ]


def fail_inside(house: House) -> None:
    """Let the model's error quote a prompt, then let the database refuse what is to be recorded."""
    quoted = {"prompt": f"{SENTENCE} {QUOTED}", "num_inference_steps": 1}
    as_job = {"Prefer": "respond-async"}
    assert house.http.post("/generate", json=quoted).status_code == 500
    assert "error" in house.http.post("/generate", json=quoted, headers={"Accept": "text/event-stream"}).text
    assert house.end(house.http.post("/generate", json=quoted, headers=as_job)).status == "failed"
    recipe = {**DATASET, "name": f"{NAME}-2", "classes": [{**CLASSES[0], "prompts": [quoted["prompt"]]}, CLASSES[1]]}
    house.end(house.http.post("/datasets", json=recipe))
    refuse_generations(house.db)
    sound = {"prompt": SENTENCE, "num_inference_steps": 1}
    assert house.http.post("/generate", json=sound).status_code == 500
    assert house.end(house.http.post("/generate", json=sound, headers=as_job)).status == "failed"


def refused_statuses(http: httpx.Client) -> set[str]:
    return set(re.findall(r'foxhound_problems_total\{code="[a-z_]+",status="(\d+)"\}', http.get("/metrics").text))


def delete_all(house: House, ids: dict[str, str]) -> None:
    for path in ("/models/{model_id}", "/datasets/{dataset_id}", "/generations/{generation_id}"):
        assert house.http.delete(path.format(**ids)).status_code in (204, 409)


def refuse_generations(db: Database) -> None:
    """Let every record of a generation fail; Postgres quotes the whole row."""
    is_sqlite = db.engine.dialect.name == "sqlite"
    refusal = (
        "CREATE TRIGGER refusal BEFORE INSERT ON generations BEGIN SELECT RAISE(ABORT, 'refused'); END"
        if is_sqlite
        else "ALTER TABLE generations ADD CONSTRAINT refusal CHECK (pack = 'refused') NOT VALID"
    )
    with db.transaction() as session:
        session.execute(text(refusal))


def operations_by_method(http: httpx.Client) -> dict[str, list[tuple[str, list[str]]]]:
    """The routes with the names of their query parameters, deletions last."""
    found: dict[str, list[tuple[str, list[str]]]] = {"get": [], "post": [], "patch": [], "put": [], "delete": []}
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
            found[method].append((path, names))
    return found


def paths_of(http: httpx.Client, method: str, ids: dict[str, str]) -> list[str]:
    """The paths of a method with known ids, but for those that need a query."""
    paths = [path for path, _ in operations_by_method(http)[method] if not path.endswith(("/export", "/compare"))]
    return [filled(path, ids) for path in paths]


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "train"), path)


def send_raw(http: httpx.Client, data: bytes) -> None:
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass


def check_form(log: str, log_format: LogFormat, name: str) -> None:
    """Check that each line is a record, or an indented line of an exception."""
    lines = log.splitlines()
    assert lines, name
    for line in lines:
        if log_format == "json":
            assert {"time", "level", "logger", "message"} <= set(json.loads(line)), line
        else:
            assert line.startswith("    ") or re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \S+: ", line), line
