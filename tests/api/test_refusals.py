"""An address whose large requests are refused again and again waits; its small requests and other addresses do not."""

import httpx

from tests.api.conftest import Serve

LARGE = b"[" + b"[]," * 9_000_000 + b"[]]"  # 27 MB, refused unread or after the count of its values
JSON = {"Content-Type": "application/json"}


def test_large_refused_requests_are_slowed_down_and_small_ones_are_served(served: Serve) -> None:
    with served(refused_share=0.0001) as node:
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=node.http.base_url, transport=elsewhere, timeout=60) as attacker:
            statuses = []
            for _ in range(200):
                try:
                    answer = attacker.post("/clip-score", content=LARGE, headers=JSON)
                except httpx.TransportError:  # refused while it was still sending
                    continue
                statuses.append(answer.status_code)
                if answer.status_code == 429:
                    break
            assert statuses[0] == 413
            assert statuses[-1] == 429
            assert answer.json()["code"] == "rate_limited"
            assert int(answer.headers["retry-after"]) >= 10

            small = attacker.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1})
            assert small.status_code == 200
        other = node.http.post("/clip-score", content=LARGE[:-1], headers=JSON)
        assert other.status_code == 413


def test_new_connections_after_refused_heads_are_read_later(served: Serve) -> None:
    with served(refused_share=0.0001) as node:
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.3")
        with httpx.Client(base_url=node.http.base_url, transport=elsewhere, timeout=1) as attacker:
            endless = {"X-Endless": "a" * 70_000}
            paused = False
            for _ in range(200):
                try:
                    assert attacker.get("/livez", headers=endless).status_code == 431
                except httpx.ReadTimeout:
                    paused = True
                    break
                except httpx.TransportError:
                    continue
            assert paused
        assert node.http.get("/livez").status_code == 200
