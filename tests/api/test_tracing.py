"""Spans of requests, of the engine and of jobs, as OpenTelemetry's exporter in memory keeps them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.db.session import Database
from app.jobs.queue import JobQueue
from app.jobs.worker import Worker
from app.logs.context import handling
from app.node.client import NodeClient
from app.tracing.otel import OtelTracing
from app.tracing.spans import JOB_ID, REQUEST_ID
from testing.fake_models import BROKEN_PROMPT, FakeModels
from testing.node import Node, make_settings, serve
from testing.pictures import Pictures, submit_pictures, wait_for_end
from testing.waiting import wait_until

CANARY = "a fox of Mrs. Secretary"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Traced:
    """A tracing and its spans."""

    tracing: OtelTracing
    memory: InMemorySpanExporter

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.memory.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        wait_until(lambda: len(self.named(name)) >= 1)
        [span] = self.named(name)
        return span


@pytest.fixture
def traced() -> Traced:
    provider, memory = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Traced(OtelTracing(provider), memory)


@pytest.fixture
def node(tmp_path: Path, database_url: str, traced: Traced) -> Iterator[Node]:
    with serve(make_settings(tmp_path / "data", database_url), FakeModels(), tracing=traced.tracing) as served:
        yield served


def attributes(spans: Sequence[ReadableSpan], name: str) -> set[object]:
    return {(span.attributes or {}).get(name) for span in spans}


def test_a_request_and_its_work_in_the_engine_are_one_trace(node: Node, traced: Traced) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "who=canary", "X-Request-Id": "the-request"}
    body = {"prompt": CANARY, "num_inference_steps": 3}
    assert node.http.post("/generate", json=body, headers=headers).status_code == 200
    request, engine = traced.only("POST /generate"), traced.only("engine")
    inner = [traced.only(name) for name in ("queued", "steps", "decode")]
    spans = [request, engine, *inner]
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert engine.parent is not None
    assert engine.parent.span_id == request.context.span_id
    assert {span.parent and span.parent.span_id for span in inner} == {engine.context.span_id}
    assert attributes(spans, REQUEST_ID) == {"the-request"}
    assert (engine.attributes or {})["foxhound.steps"] == 3
    assert (request.attributes or {})["http.response.status_code"] == 200
    queued, steps, decode = inner
    assert engine.start_time == queued.start_time
    assert queued.end_time == steps.start_time
    assert steps.end_time == decode.start_time
    assert "canary" not in "".join(span.to_json() for span in spans)
    assert CANARY not in "".join(span.to_json() for span in spans)


def test_what_fails_is_marked_without_words(node: Node, traced: Traced) -> None:
    assert node.http.post("/generate", json={"prompt": BROKEN_PROMPT}).status_code == 500
    assert node.http.get(f"/jobs/{CANARY}").status_code == 404
    engine, request = traced.only("engine"), traced.only("POST /generate")
    assert (engine.attributes or {})["error.type"] == "InferenceFailed"
    assert (request.attributes or {})["error.type"] == "inference_failed"
    assert (engine.status.is_ok, request.status.is_ok, engine.events, request.events) == (False, False, (), ())
    assert traced.only("GET /jobs/{job_id}").status.is_ok
    assert CANARY not in "".join(span.to_json() for span in traced.memory.get_finished_spans())


def test_a_job_and_its_chunks_name_the_request_that_made_it(
    db: Database, queue: JobQueue, database_url: str, tmp_path: Path, traced: Traced
) -> None:
    with handling(request="the-request"):
        job_id = submit_pictures(queue, db, tmp_path / "d")
    worker = Worker(db, database_url, [Pictures()], ttl_s=2, poll_s=0.02, tracing=traced.tracing)
    worker.start()
    assert wait_for_end(db, job_id).request_id == "the-request"
    worker.stop()
    spans = [traced.only("job"), *traced.named("chunk")]
    assert len(spans) == 5
    assert (attributes(spans, REQUEST_ID), attributes(spans, JOB_ID)) == ({"the-request"}, {job_id})
    assert attributes(spans, "foxhound.job_kind") == {"pictures"}


def test_the_engine_goes_on_with_the_trace_of_the_worker(node: Node, traced: Traced) -> None:
    client = NodeClient(node.settings.engine_socket, tracing=traced.tracing)
    with handling(request="the-request", job="the-job"), traced.tracing.span("chunk", {}):
        client.backbone(keep_waiting=lambda: None)
    client.close()
    answered, chunk = traced.only("POST /backbone"), traced.only("chunk")
    assert answered.parent is not None
    assert answered.parent.span_id == chunk.context.span_id
    assert attributes([answered, chunk], REQUEST_ID) == {"the-request"}
    assert attributes([answered, chunk], JOB_ID) == {"the-job"}
