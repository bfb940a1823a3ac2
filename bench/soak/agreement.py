"""Whether the node's metrics agree with what the clients counted: pure functions over both.

Every request of the load is a POST whose client saw its status or left on purpose. Those that left asked for one image
each at `/generate`, so that what the node made for them can be told from the statuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

# Outcomes of clients that saw no status; the second kind is a broken limit of its own.
LEFT, UNANSWERED = "left", "unanswered"
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
    unseen: Counter[tuple[str, str]] = Counter()
    for route, status in sorted({*seen, *node}):
        difference = node.get((route, status), 0) - seen.get((route, status), 0)
        if status not in (LEFT, UNANSWERED) and difference:
            unseen[route, status] = difference
    for route in sorted({route for route, _ in [*seen, *unseen]}):
        num_unseen = seen.get((route, LEFT), 0) + seen.get((route, UNANSWERED), 0)
        here = {status: number for (of, status), number in unseen.items() if of == route}
        if sum(here.values()) != num_unseen or min(here.values(), default=0) < 0:
            found.append(f"{route}: {num_unseen} clients saw no status; more than the others, the node counted {here}")
    num_drawn = unseen[GENERATE, "200"]
    if node_images != images + num_drawn and not seen.get((GENERATE, UNANSWERED)):
        found.append(f"the clients saw {images} images and left {num_drawn}, the node counted {node_images}")
    return found
