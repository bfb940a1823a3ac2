"""How much is measured, and with which loads. Knows no servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from bench.generate.load import Poster, Run, closed_loop, late_arrivals, open_loop
from bench.generate.traces import ImageRequest, Traffic, arrival_times, make_trace

BUSY_CLIENTS = 8
BUSY: dict[Traffic, str] = {"identical": "identical, 8 clients", "mixed": "mixed, 8 clients"}
POISSON = "mixed, Poisson {:g}"
LATE = "late 10-step request"

LONG = ImageRequest("a photo of a dog in the snow", num_inference_steps=50, scheduler="ddim", seed=1)
SHORT = replace(LONG, num_inference_steps=10, scheduler="dpmpp_2m", seed=2)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything.

    Attributes:
        repeats: Rounds over all servers.
        counts: Requests of a closed loop by its traffic and number of clients.
        poisson_counts: Requests of an open loop by its arrivals, as a share of the best peer's capacity.
        late_pairs: Long requests that a short one arrives behind.
        alone_pairs: Requests to an idle node, each beside a direct call of the pipeline.
        tuning_count: Requests of each traffic by which a peer's settings are chosen.
        workers: Settings of the threads server, among whose drawing threads the CPU threads are shared out.
        batches: Settings of LitServe: largest batch, seconds to wait for it.
    """

    repeats: int
    counts: dict[tuple[Traffic, int], int]
    poisson_counts: dict[float, int]
    late_pairs: int
    alone_pairs: int
    tuning_count: int
    workers: tuple[int, ...]
    batches: tuple[tuple[int, float], ...]


# Mixed traces of 36 ask for every combination once. Busy traces are long beside the time in which they run out, and so
# are the arrivals at 0.9: a queue that is nearly full takes long to show.
FULL = Plan(
    repeats=3,
    counts={
        ("identical", 1): 6,
        ("identical", 4): 12,
        ("identical", 8): 48,
        ("mixed", 1): 8,
        ("mixed", 4): 12,
        ("mixed", 8): 72,
    },
    poisson_counts={0.6: 36, 0.9: 72},
    late_pairs=5,
    alone_pairs=10,
    tuning_count=24,
    workers=(1, 2),
    batches=((4, 0.0), (8, 0.0), (8, 0.05)),
)
QUICK = Plan(
    repeats=1,
    counts={("identical", 1): 2, ("identical", 4): 4, ("identical", 8): 8, ("mixed", 1): 2, ("mixed", 8): 12},
    poisson_counts={0.6: 12, 0.9: 12},
    late_pairs=2,
    alone_pairs=4,
    tuning_count=8,
    workers=(2,),
    batches=((8, 0.0),),
)
GPU = Plan(
    repeats=1,
    counts={("identical", 1): 6, ("identical", 8): 24, ("mixed", 1): 8, ("mixed", 4): 12, ("mixed", 8): 36},
    poisson_counts={0.6: 36, 0.9: 36},
    late_pairs=5,
    alone_pairs=7,
    tuning_count=24,
    workers=(2,),
    batches=((8, 0.0),),
)

# What the targets need, without LitServe, which has an environment of its own.
GPU_SHORT = Plan(
    repeats=1,
    counts={("identical", 8): 24, ("mixed", 8): 36},
    poisson_counts={0.9: 36},
    late_pairs=3,
    alone_pairs=3,
    tuning_count=12,
    workers=(2,),
    batches=(),
)


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load.

    Attributes:
        traffic: What it sends; a peer is tuned for each traffic by itself.
        run: Sends it; another repeat's number gives other requests of the same kind.
    """

    name: str
    traffic: Traffic
    run: Callable[[Poster, int], Awaitable[Run]]


def busy_load(traffic: Traffic, clients: int, count: int) -> Load:
    """Make a closed loop."""
    name = f"{traffic}, {clients} client{'s' * (clients > 1)}"
    return Load(name, traffic, lambda http, repeat: closed_loop(http, make_trace(traffic, count, repeat), clients))


def make_loads(plan: Plan, capacity: float, late_by_s: float) -> list[Load]:
    """Make every load of a round.

    Args:
        plan: How much.
        capacity: Images a second of mixed traffic that the best peer can do.
        late_by_s: Seconds after the long request at which the short one is sent.
    """
    loads = [busy_load(traffic, clients, count) for (traffic, clients), count in plan.counts.items()]
    loads += [_poisson(share, share * capacity, count) for share, count in plan.poisson_counts.items()]
    pairs = [(LONG, SHORT)] * plan.late_pairs
    return [*loads, Load(LATE, "mixed", lambda http, _repeat: late_arrivals(http, pairs, late_by_s))]


def _poisson(share: float, rate: float, count: int) -> Load:
    def run(http: Poster, repeat: int) -> Awaitable[Run]:
        seed = 100 + repeat  # others than the closed loop's
        return open_loop(http, make_trace("mixed", count, seed), arrival_times(count, rate, seed))

    return Load(POISSON.format(share), "mixed", run)
