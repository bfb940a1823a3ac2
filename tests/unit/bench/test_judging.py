"""The bench of `/classify` and `/clip-score`, without models: its load, its check of the answers and its verdicts."""

import base64
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from bench.environments import pinned_version
from bench.judging.answers import TOLERANCE, check_same, read_infinity, read_litserve, read_ours
from bench.judging.cases import Case, Who
from bench.judging.material import label_sets
from bench.judging.report import judge, render_loads, to_json
from bench.judging.traffic import Load, Question, drive


class Echo(BaseHTTPRequestHandler):
    """Answers 200 to what is asked of `/known`, 404 to anything else."""

    protocol_version = "HTTP/1.1"
    asked: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(body)
        self.send_response(200 if self.path == "/known" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[ThreadingHTTPServer]:
    Echo.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_every_request_of_a_question_is_sent_and_counted_once(echo: ThreadingHTTPServer) -> None:
    questions: list[Question] = [[("/known", b"image %d" % i), ("/known", b"texts %d" % i)] for i in range(1_000)]
    load = drive(echo.server_port, questions, clients=3, seconds=0.05)
    asked = len(load.latencies_s)
    assert asked >= 3
    assert sorted(Echo.asked) == sorted(body for i in range(asked) for _, body in questions[i % 1_000])


def test_a_server_that_refuses_ends_the_load(echo: ThreadingHTTPServer) -> None:
    with pytest.raises(RuntimeError, match="/unknown answered 404"):
        drive(echo.server_port, [[("/unknown", b"{}")]], clients=2, seconds=60)


def test_labels_repeat_or_are_all_new() -> None:
    repeated, unique = (label_sets(unique=unique, count=20) for unique in (False, True))
    assert len({tuple(labels) for labels in repeated}) == 4
    assert len({label for labels in unique for label in labels}) == 200


def test_scores_are_read_from_every_servers_form() -> None:
    labels, scale = ["a fox", "a dog"], 100.0
    image = np.array([[0.6, 0.8]], np.float32)
    texts = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    ours = read_ours(
        [json.dumps({"scores": [{"label": "a fox", "logit": 60.0}, {"label": "a dog", "logit": 80.0}]}).encode()]
    )

    def embedded(rows: np.ndarray) -> bytes:
        return json.dumps({"data": [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in rows]}).encode()

    check_same("litserve", read_litserve([b'{"logits": [60.0, 80.0]}'], labels), ours)
    infinity = read_infinity([embedded(image), embedded(texts)], labels, scale)
    assert infinity == pytest.approx(ours)


def test_classes_are_compared_by_the_logarithm_of_their_probability() -> None:
    answer = [b'{"predictions": [{"label": "fox", "probability": 0.01}]}']
    assert read_ours(answer) == read_litserve(answer, []) == {"fox": pytest.approx(math.log(0.01))}


@pytest.mark.parametrize("theirs", [{"fox": 1.0 + 2 * TOLERANCE}, {"dog": 1.0}, {"fox": math.nan}])
def test_other_answers_than_ours_are_refused(theirs: dict[str, float]) -> None:
    check_same("peer", {"fox": 1.0 + TOLERANCE / 2}, {"fox": 1.0})
    with pytest.raises(RuntimeError, match="peer answers"):
        check_same("peer", theirs, {"fox": 1.0})


def case_of(ours: Load, *peers: Load, bare: float, least_ratio: float = 1.0) -> Case:
    case = Case("clip", "clip-score", [], [], [], lambda: None, least_ratio=least_ratio, bare_per_second=[bare])
    case.loads["ours"] = [ours]
    names: tuple[Who, Who] = ("litserve", "infinity")
    for who, load in zip(names, peers, strict=False):
        case.loads[who], case.settings[who] = [load], who
    return case


def load_of(rate: float, latency: float) -> Load:
    return Load(rate, [latency] * 10)


def test_targets_compare_with_the_best_peer() -> None:
    case = case_of(load_of(10, 1.0), load_of(8, 1.5), load_of(5, 1.2), bare=11.0)
    figures = judge([case])
    assert [figure.value for figure in figures] == pytest.approx([1.25, 1 / 1.2, 0.1])
    assert [figure.verdict for figure in figures[:2]] == ["ok", "ok"]
    assert judge([case_of(load_of(10, 1.0), load_of(8, 1.5), bare=11.0, least_ratio=1.3)])[0].verdict == "BELOW"


def test_without_a_peer_nothing_is_won() -> None:
    case = case_of(load_of(10, 1.0), bare=12.0)
    figures = judge([case])
    assert [figure.verdict for figure in figures] == ["BELOW", "ABOVE", "ABOVE"]
    assert [target["value"] for target in to_json([case], figures, {})["targets"]] == [None, None, 0.2]


def test_the_table_and_the_json_hold_every_server() -> None:
    case = case_of(load_of(10, 1.0), load_of(8, 1.5), load_of(5, 1.2), bare=11.0)
    assert len(render_loads([case]).splitlines()) == 3 + 3
    report = json.loads(json.dumps(to_json([case], judge([case]), {"threads": 2})))
    assert report["threads"] == 2
    assert set(report["cases"]["clip"]["servers"]) == {"ours", "litserve", "infinity"}


@pytest.mark.parametrize(("name", "package"), [("litserve", "litserve"), ("infinity", "infinity-emb")])
def test_a_peers_version_is_pinned(name: str, package: str) -> None:
    assert pinned_version(name, package)[0].isdigit()
