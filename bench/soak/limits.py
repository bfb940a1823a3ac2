"""What a soak must show, and what of it was not: pure functions over what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

MAX_GROWTH = 0.10

# A fault in a step fails all images of its batch, and a full queue refuses: both are answers.
ALLOWED = {
    "generate": {"200", "500", "503"},
    "leave": {"200", "500", "503", "left"},
    "clip": {"200", "503"},
    "classify": {"200", "503"},
    "bad": {"400", "404", "413", "415", "422", "429"},
    "capped": {"200", "422", "429", "500", "503"},  # 422: more images than it may draw at once
    "stranger": {"401", "403"},
    # A client that goes on sending megabytes after a refusal is cut off.
    "hostile": {"200", "413", "422", "429", "503", "unanswered"},
}

# What the load must have brought about, or it shows nothing.
REQUIRED = {("generate", "200"): "no image was made", ("capped", "429"): "no bound of a key was reached"}


def told_secrets(texts: Mapping[str, str], secrets: Mapping[str, str]) -> list[str]:
    """Tell which texts, such as the node's log, repeat a secret; both are given by name."""
    return [
        f"{where} repeats {what}" for where, text in texts.items() for what, secret in secrets.items() if secret in text
    ]


def broken_limits(
    counts: Counter[tuple[str, str]], rss_bytes: tuple[int, int], state: Mapping[str, Any], exit_code: int
) -> list[str]:
    """Tell in words which limits were broken; nothing when all hold.

    Args:
        counts: Requests by kind and outcome.
        rss_bytes: The server's resident memory once warm, and at the end.
        state: The engine's last word, after the load had stopped.
        exit_code: Of the server, after SIGTERM.
    """
    broken = [
        f"{number} {kind} requests ended with {outcome}"
        for (kind, outcome), number in sorted(counts.items())
        if outcome not in ALLOWED[kind]
    ]
    broken += [sentence for what, sentence in REQUIRED.items() if not counts[what]]
    warm, end = rss_bytes
    if end > warm * (1 + MAX_GROWTH):
        broken.append(f"memory grew by {end / warm - 1:.1%}")
    if state["in_flight"]:
        broken.append(f"{state['in_flight']} requests were left in the engine")
    if not state["is_alive"]:
        broken.append("the device thread died")
    if any(outcome == "500" for _, outcome in counts) and not state["faults"]:
        broken.append("requests failed without a fault")
    if exit_code not in (0, -15):
        broken.append(f"the server ended with {exit_code}")
    return broken
