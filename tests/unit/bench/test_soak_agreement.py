"""When a soak takes the node's metrics and the clients' counts for the same."""

import pytest

from bench.soak.agreement import counted_by_node, disagreements

SEEN = {("/generate", "200"): 5, ("/generate", "left"): 3, ("/generate", "422"): 2, ("none", "404"): 1}
NODE = {("/generate", "200"): 6, ("/generate", "499"): 2, ("/generate", "422"): 2, ("none", "404"): 1}


def test_clients_that_left_may_have_been_answered() -> None:
    assert disagreements(SEEN, 9, NODE, 10) == []


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({("/generate", "499"): 3}, 10),
        ({("/generate", "422"): 1}, 10),
        ({("none", "404"): 2}, 10),
        ({("/classify", "200"): 1}, 10),
        ({}, 9),
    ],
)
def test_any_difference_is_told(changes: dict[tuple[str, str], int], images: int) -> None:
    assert disagreements(SEEN, 9, {**NODE, **changes}, images)


def test_a_scrape_is_read() -> None:
    text = """# TYPE foxhound_http_requests_total counter
foxhound_http_requests_total{method="POST",route="/generate",status="200"} 6.0
foxhound_http_requests_total{method="GET",route="/metrics",status="200"} 6.0
# TYPE foxhound_generated_images_total counter
foxhound_generated_images_total 10.0
"""
    assert counted_by_node(text) == ({("/generate", "200"): 6}, 10)
