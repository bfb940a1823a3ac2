"""The attacks, each a function that goes on until its target's time is over.

Run in a process of their own, so that they share no interpreter with the good client:
`python -m bench.hostile.attacks NAME HOST PORT DATASET_ID SECONDS`. It says `ready` once its bytes are made, and at the
end how it was answered, as a line of JSON.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench.hostile import payloads
from bench.hostile.payloads import FORM, JSON
from bench.hostile.wire import Target, exchange, head, repeat, slowly

FLOOD_PAUSE_S = 0.02
# For all that an attack needs to be there first.
MAKING_S = 120.0

# Given its target, an attack makes its bytes and returns what to do with them.
Attack = Callable[[Target], Callable[[], None]]


def _posts(path: str, content_type: str, make: Callable[[], bytes], clients: int = 2) -> Attack:
    """Post the same body again and again; `{dataset}` in the path becomes the target's."""

    def prepare(target: Target) -> Callable[[], None]:
        body = make()
        data = head(path.format(dataset=target.dataset_id), content_type=content_type, length=len(body)) + body
        return lambda: repeat(target, lambda: exchange(target, [data]), clients)

    return prepare


def _trickles(first: Callable[[Target], bytes], chunk: bytes, pause_s: float, clients: int) -> Attack:
    """Send a beginning, and then a chunk at a time."""

    def prepare(target: Target) -> Callable[[], None]:
        data = first(target)
        return lambda: repeat(target, lambda: exchange(target, slowly(target, data, chunk, pause_s)), clients)

    return prepare


def _endless_head(target: Target) -> Callable[[], None]:
    def chunks() -> Iterable[bytes]:
        yield b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Endless: "
        while not target.is_over:
            yield b"x" * 65_536

    return lambda: repeat(target, lambda: exchange(target, chunks()), 1)


def _floods(clients: int, make_path: Callable[[int], str]) -> Attack:
    """Ask for one path after the other, each client up to fifty times a second."""

    def prepare(target: Target) -> Callable[[], None]:
        numbers = itertools.count()
        ask = functools.partial(head, method="GET")

        def send() -> None:
            exchange(target, [ask(make_path(next(numbers)))])
            time.sleep(FLOOD_PAUSE_S)

        return lambda: repeat(target, send, clients)

    return prepare


def _recipes() -> Iterator[bytes]:
    """Yield requests for forty bulky datasets."""
    for recipe in (payloads.bulky_recipe(f"bulky-{index}") for index in range(40)):
        yield head("/datasets", length=len(recipe)) + recipe


def _bulky_recipes(target: Target) -> Callable[[], None]:
    """Make forty bulky datasets, and begin anew, with names that are taken."""
    recipes = itertools.cycle(list(_recipes()))
    return lambda: repeat(target, lambda: exchange(target, [next(recipes)]), 1)


def _bulky_datasets(target: Target) -> Callable[[], None]:
    """List forty bulky datasets, which are made before, and jobs, without a pause."""
    target.ends_at = time.monotonic() + MAKING_S
    for recipe in _recipes():
        exchange(target, [recipe])
    lists = itertools.cycle(["/datasets?limit=100", "/jobs?limit=100"])
    return lambda: repeat(target, lambda: exchange(target, [head(next(lists), method="GET")]), 2)


def _uploads(make: Callable[[int], bytes]) -> Attack:
    """Upload four pictures in each of eight forms at once."""

    def prepare(target: Target) -> Callable[[], None]:
        body = payloads.form([("files", make(seed)) for seed in range(4)], {"class_name": "fox", "split": "train"})
        data = head(f"/datasets/{target.dataset_id}/images", content_type=FORM, length=len(body)) + body
        return lambda: repeat(target, lambda: exchange(target, [data]), 8)

    return prepare


def _upload_begun(target: Target) -> bytes:
    """Return the beginning of a form whose one file never ends."""
    path = f"/datasets/{target.dataset_id}/images"
    begun = payloads.form([("files", b"")]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    return head(path, content_type=FORM, length=200_000_000) + begun


def _classify(*pictures: Callable[[], bytes], name: str = "image", clients: int = 2) -> Attack:
    return _posts("/classify", FORM, lambda: payloads.form([(name, make()) for make in pictures]), clients)


ATTACKS: dict[str, Attack] = {
    "endless head": _endless_head,
    "200 unfinished heads": _trickles(lambda _: b"GET /livez HTTP/1.1\r\nX-A: b\r\n", b"X-A: b\r\n", 1.0, 200),
    "60,000 unknown members": _posts("/generate", JSON, payloads.unknown_members),
    "29 MB of empty arrays": _posts("/generate", JSON, payloads.empty_arrays),
    "29 MB where no body is read": _posts("/jobs/none/cancel", JSON, payloads.empty_arrays),
    "template bomb": _posts("/datasets?dry_run=true", JSON, payloads.template_bomb),
    "eight uploads of large pictures": _uploads(payloads.large_picture),
    "eight uploads of transparent pictures": _uploads(payloads.transparent_picture),
    "eight slow uploads": _trickles(_upload_begun, b"x", 0.5, 8),
    "slow steady upload": _trickles(_upload_begun, b"x" * 65_536, 0.25, 1),
    "forty bulky recipes": _bulky_recipes,
    "forty bulky datasets, listed": _bulky_datasets,
    "JPEG of fill bytes": _classify(payloads.fill_bytes),
    "JPEG of empty segments": _classify(payloads.empty_segments),
    "JPEG of full segments": _classify(payloads.full_segments),
    "four large pictures classified": _classify(lambda: payloads.large_picture(0), clients=4),
    "PNG of a million chunks": _classify(payloads.empty_chunks),
    "sixteen such pictures in a form": _classify(*[payloads.empty_segments] * 16, name="images"),
    "form of 10,000 fields": _posts("/classify", FORM, payloads.many_fields),
    "form with a head of 1 MB": _posts("/classify", FORM, payloads.long_part_head),
    "request lines of 1 MB": _floods(2, lambda _: "/" + "a" * 1_000_000),
    "flood of unknown paths": _floods(4, lambda index: f"/nowhere/{index}/" + "a" * 1_000),
}


def _give_way_to_the_node() -> None:
    """Take the processor time that the node does not want.

    Linux may share it out by sessions instead of processes, so this process must have a session of its own.
    """
    os.nice(19)
    for session_nice in ("-5", "19"):  # as root, before what else runs: the node has -20 then
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(session_nice)
            return


def main() -> int:
    """Make one attack."""
    name, host, port, dataset_id, seconds = sys.argv[1:]
    _give_way_to_the_node()
    address = f"127.0.0.{2 + list(ATTACKS).index(name)}"  # of its own, so that no attack pays for an earlier one
    target = Target(host, int(port), address, dataset_id, ends_at=0.0)
    attack = ATTACKS[name](target)
    print("ready", flush=True)
    sys.stdin.readline()
    target.ends_at = time.monotonic() + float(seconds)
    attack()
    print(json.dumps(dict(sorted(target.outcomes.items()))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
