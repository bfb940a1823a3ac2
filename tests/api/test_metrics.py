"""`GET /metrics` of a served node: what is counted, and what is left out."""

import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.access.caller import Scope
from app.db.base import utc_now
from app.db.models import Job, Worker
from app.db.session import Database
from app.metrics.series import PREFIX, PROCESS, SERIES
from testing.api_keys import new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.outages import proxied
from testing.waiting import wait_until

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
WAITING = {"model": "diffusion", "priority": "interactive"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(http: httpx.Client) -> Samples:
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((PREFIX + name, frozenset(labels.items())), 0.0)


def generate(http: httpx.Client, **changes: object) -> httpx.Response:
    return http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 3, **changes})


def test_requests_are_counted_by_route_and_status(node: Node) -> None:
    http = node.http
    paths = ["/jobs/one", "/jobs/two", "/nowhere/one", "/nowhere/two", "/docs/assets/favicon.png", "/openapi.json"]
    answers = [http.get(path) for path in paths]
    answers += [generate(http, num_images_per_prompt=2), generate(http, width=1), http.delete("/generate")]
    samples = scrape(http)
    statuses = Counter(
        (labels["method"], labels["route"], labels["status"])
        for (name, pairs), number in samples.items()
        if name == "foxhound_http_requests_total"
        for labels in [dict(pairs)]
        for _ in range(int(number))
    )
    assert statuses == {
        ("GET", "/jobs/{job_id}", "404"): 2,
        ("GET", "none", "404"): 2,
        ("GET", "/docs/assets", "200"): 1,
        ("GET", "/openapi.json", "200"): 1,
        ("POST", "/generate", "200"): 1,
        ("POST", "/generate", "422"): 1,
        ("DELETE", "/generate", "405"): 1,
    }
    assert value(samples, "http_requests_in_flight") == 1
    assert value(samples, "generated_images_total") == 2
    assert value(samples, "http_request_seconds_count", method="GET", route="/jobs/{job_id}") == 2
    assert value(samples, "problems_total", code="not_found", status="404") == 4
    assert value(samples, "problems_total", code="method_not_allowed", status="405") == 1
    sent = sum(int(answer.headers["content-length"]) for answer in answers if answer.request.url.path == "/generate")
    assert value(samples, "http_response_bytes_total", route="/generate") == sent
    assert value(scrape(http), "http_requests_total", method="GET", route="/metrics", status="200") == 1


def test_requests_without_a_key_are_counted_at_their_route(node: Node, database_url: str) -> None:
    key = new_key(database_url, "operator", Scope.ADMIN)
    wait_until(lambda: node.http.get("/datasets/one").status_code == 401)
    text = node.http.get("/metrics", headers={"X-API-Key": key.key}).text
    assert 'foxhound_http_requests_total{method="GET",route="/datasets/{dataset_id}",status="401"} ' in text


def test_words_of_clients_are_no_labels(node: Node) -> None:
    before = {name for name, _ in scrape(node.http)}
    for number in range(30):
        node.http.get(f"/canary{number}")
        node.http.get(f"/jobs/canary{number}", headers={"X-Request-Id": f"canary{number}", "Accept": "canary"})
        node.http.request("GET", "/livez", params={"canary": str(number)})
        node.http.post("/generate", json={f"canary{number}": "canary", "prompt": "canary"})
        node.http.request(f"CANARY{number}", "/generate")
    text = node.http.get("/metrics").text
    assert "canary" not in text.lower()
    assert text.count("foxhound_http_requests_total{") < 10
    assert before <= {name for name, _ in scrape(node.http)}


def test_refused_heads_are_counted(node: Node) -> None:
    host, port = node.http.base_url.host, node.http.base_url.port
    with socket.create_connection((host, port or 80)) as sock:
        sock.sendall(b"no http\r\n\r\n")
        assert b"400" in sock.recv(4_096)
    samples = scrape(node.http)
    assert value(samples, "http_requests_total", method="OTHER", route="none", status="400") == 1
    assert value(samples, "problems_total", code="malformed_request", status="400") == 1


def test_the_engine_is_counted(node: Node) -> None:
    generate(node.http, num_images_per_prompt=2)
    samples = scrape(node.http)
    assert value(samples, "engine_rows_total", model="diffusion", kind="used") == 12  # 2 images, 3 steps, 2 rows
    assert value(samples, "engine_step_seconds_count", model="diffusion", rows="2") == 6
    assert value(samples, "engine_decode_seconds_count", model="diffusion") == 2
    assert value(samples, "engine_admitted_total", model="diffusion", priority="interactive") == 2
    assert value(samples, "engine_wait_seconds_count", priority="interactive") == 2
    assert value(samples, "engine_up") == value(samples, "model_ready", model="clip") == 1
    assert value(samples, "model_bytes", model="diffusion") > 1_000_000


def test_waiting_requests_and_their_age_are_seen(node: Node) -> None:
    node.models.diffusion.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(generate, node.http) for _ in range(2)]
        wait_until(lambda: value(scrape(node.http), "engine_queue_requests", **WAITING) == 1)
        samples = scrape(node.http)
        assert value(samples, "engine_queue_oldest_seconds", priority="interactive") > 0
        assert value(samples, "engine_queue_oldest_seconds", priority="background") == 0
        assert value(samples, "engine_requests", model="diffusion") == 2
        assert value(samples, "http_requests_in_flight") == 3
        node.models.diffusion.gate.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_a_client_that_left_is_counted_as_499(node: Node) -> None:
    node.models.diffusion.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        node.http.post("/generate", json={"prompt": "a fox"}, timeout=0.5)
    left = {"method": "POST", "route": "/generate", "status": "499"}
    wait_until(lambda: value(scrape(node.http), "http_requests_total", **left) == 1)
    node.models.diffusion.gate.set()


def test_jobs_workers_and_storage_are_read_from_the_records(node: Node, db: Database) -> None:
    made = generate(node.http).json()
    accepted = node.http.post("/generate", json={"prompt": "a fox"}, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    with db.transaction() as session:
        session.add(Worker(id="one", host="here", pid=1))
        session.add(Job(id="ended", kind="train", status="failed", spec={}, progress_unit="images"))
        session.add(Worker(id="two", host="here", pid=2, beat_at=utc_now() - timedelta(seconds=90)))
    samples = scrape(node.http)
    assert value(samples, "jobs", kind="generate", status="queued") == 1
    assert value(samples, "jobs", kind="train", status="failed") == 1
    assert value(samples, "job_oldest_queued_seconds", kind="generate") > 0
    assert (value(samples, "workers", state="live"), value(samples, "workers", state="late")) == (1, 1)
    assert 0 <= value(samples, "worker_heartbeat_age_seconds") < 60
    assert value(samples, "database_up") == 1
    size = len(node.http.get(made["images"][0]["url"]).content)
    assert value(samples, "storage_bytes", kind="images") == size
    assert value(samples, "storage_free_bytes") > 0


def test_every_series_of_the_list_is_there_and_no_other(node: Node, db: Database) -> None:
    generate(node.http)
    node.http.get("/nowhere")
    node.http.post("/generate", json={"prompt": "a fox"}, headers={"Prefer": "respond-async"})
    with db.transaction() as session:
        session.add(Worker(id="one", host="here", pid=1))
    text = node.http.get("/metrics").text
    found = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    described: dict[str, str] = {series.full_name: series.kind for series in SERIES}
    described |= {PREFIX + name: kind for name, (kind, _) in PROCESS.items()}
    assert found == described


def test_each_application_counts_for_itself(tmp_path: Path, node: Node, database_url: str) -> None:
    generate(node.http)
    settings = make_settings(tmp_path / "data", database_url, run_dir=tmp_path / "other")
    with serve(settings, FakeModels()) as other:
        samples = scrape(other.http)
    assert value(samples, "generated_images_total") == 0
    assert value(samples, "storage_bytes", kind="images") > 0  # the records are shared


def test_an_outage_of_the_database_leaves_its_series_out(postgres_url: str, tmp_path: Path) -> None:
    with proxied(postgres_url) as way, serve(make_settings(tmp_path / "data", way.url), FakeModels()) as node:
        way.cut()
        samples = scrape(node.http)
        names = {name for name, _ in samples}
        assert value(samples, "database_up") == 0
        assert names.isdisjoint({"foxhound_jobs", "foxhound_workers", "foxhound_storage_bytes"})
        assert {"foxhound_engine_up", "foxhound_storage_free_bytes", "foxhound_build_info"} <= names
        way.mend()


def test_metrics_are_described_as_text(node: Node) -> None:
    described = node.http.get("/openapi.json").json()["paths"]["/metrics"]["get"]
    assert list(described["responses"]["200"]["content"]) == ["text/plain"]


def test_the_dashboard_and_the_alerts_use_series_of_a_scrape(node: Node, db: Database) -> None:
    generate(node.http)
    node.http.get("/nowhere")
    node.http.post("/generate", json={"prompt": "a fox"}, headers={"Prefer": "respond-async"})
    with db.transaction() as session:
        session.add(Worker(id="one", host="here", pid=1))
    scraped = {name for name, _ in scrape(node.http)}
    scraped |= {re.sub("_(bucket|sum|count)$", "", name) for name in scraped}
    words = "".join((GRAFANA / name).read_text(encoding="utf-8") for name in ("foxhound.json", "alerts.yml"))
    used = set(re.findall(r"foxhound_\w+", words))
    assert len(used) > 20
    assert used - scraped == set()
