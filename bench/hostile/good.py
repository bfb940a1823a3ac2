"""The good client: what it asks for, how long it waits, and how long the event loop stood still meanwhile.

Knows nothing of attacks. Two threads: one asks for the mix, one only whether the node lives.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field

import httpx

from bench.hostile.payloads import small_picture

PATIENCE_S = 60.0
PAUSE_S = 0.02


@dataclass
class Watch:
    """What a good client saw in a while.

    Attributes:
        mix_s: Seconds that each request of the mix took.
        alive_s: Seconds that each `/livez` took; the largest is about the event loop's longest pause.
        faults: What was answered otherwise than 200, in words.
    """

    mix_s: list[float] = field(default_factory=list)
    alive_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of the mix, in milliseconds; infinite without two answers."""
        return 1000 * statistics.quantiles(self.mix_s, n=20)[-1] if len(self.mix_s) > 1 else float("inf")

    @property
    def pause_ms(self) -> float:
        """The longest `/livez`, in milliseconds."""
        return 1000 * max(self.alive_s, default=float("inf"))


class GoodClient:
    """Asks for small things, one after the other."""

    def __init__(self, url: str) -> None:
        """Ask the node at `url`."""
        self._http = httpx.Client(base_url=url, timeout=PATIENCE_S)
        self._files = {"image": small_picture()}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def turn(self, watch: Watch) -> None:
        """Ask once for each thing of the mix."""
        for method, path, files in (
            ("GET", "/livez", None),
            ("GET", "/datasets?limit=5", None),
            ("POST", "/classify", self._files),
        ):
            self._timed(watch, watch.mix_s, method, path, files)

    def watch(self, over: threading.Event) -> Watch:
        """Ask until it is over, and tell what was seen."""
        watch = Watch()
        prober = threading.Thread(target=self._probe, args=(watch, over))
        prober.start()
        while not over.is_set():
            self.turn(watch)
            over.wait(PAUSE_S)
        prober.join()
        return watch

    def _probe(self, watch: Watch, over: threading.Event) -> None:
        while not over.is_set():
            self._timed(watch, watch.alive_s, "GET", "/livez", None)
            over.wait(PAUSE_S)

    def _timed(self, watch: Watch, times: list[float], method: str, path: str, files: dict[str, bytes] | None) -> None:
        began = time.monotonic()
        try:
            status = str(self._http.request(method, path, files=files).status_code)
        except httpx.TransportError as error:
            status = type(error).__name__
        times.append(time.monotonic() - began)
        if status != "200":
            watch.faults.append(f"{method} {path.partition('?')[0]}: {status}")
