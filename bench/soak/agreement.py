"""Whether the node's metrics agree with what the clients counted: pure functions over both.

Every request of the load is a POST whose client saw its status or left on purpose. Those that left asked for one image
each at `/generate`, so that what the node made for them can be told from the statuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

LEFT = "left"
GENERATE = "/generate"

Answers = Mapping[tuple[str, str], int]


def counted_by_node(text: str) -> tuple[Counter[tuple[str, str]], int]:
    """Return the POSTs of a scrape by route and status, and the images of inline answers."""
    answers: Counter[tuple[str, str]] = Counter()
    images = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "foxhound_http_requests_total" and sample.labels["method"] == "POST":
                answers[sample.labels["route"], sample.labels["status"]] += int(sample.value)
            elif sample.name == "foxhound_generated_images_total":
                images = int(sample.value)
    return answers, images


def disagreements(seen: Answers, images: int, node: Answers, node_images: int) -> list[str]:
    """Tell where the node counted something else than the clients; nothing where both agree exactly.

    Args:
        seen: What the clients saw, by route and status; `left` for those that did not wait.
        images: Images in the answers that they saw.
        node: What the node counted.
        node_images: Images that it counted.
    """
    found = []
    more: Counter[str] = Counter()
    for route, status in sorted({*seen, *node}):
        if status == LEFT:
            continue
        difference = node.get((route, status), 0) - seen.get((route, status), 0)
        if route == GENERATE and difference > 0:
            more[status] = difference
        elif difference:
            found.append(f"{route} {status}: the clients saw {seen.get((route, status), 0)}, the node {difference:+d}")
    num_left = seen.get((GENERATE, LEFT), 0)
    if more.total() != num_left:
        found.append(f"{GENERATE}: {num_left} clients left, and the node counted {more.total()} answers nobody saw")
    if node_images != images + more["200"]:
        found.append(f"the clients saw {images} images and left {more['200']}, the node counted {node_images}")
    return found
