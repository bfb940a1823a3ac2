"""Every series of `/metrics`, its labels and its meaning, and how one is made in the registry of an application.

`docs/monitoring.md` has a table that is made from this list.

Labels have few values, whatever clients send: templates of routes instead of paths, kinds instead of names. Imports
nothing of the application; pure.
"""

from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# Without them a counter would have a second series with the time of its first use.
disable_created_metrics()  # type: ignore[no-untyped-call]

PREFIX: Final = "foxhound_"

# From a step of a small network on a GPU to one of a full-size model on a slow CPU.
STEP_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# From an answer out of memory to one that waits behind others.
REQUEST_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Of the engine's requests, as `app.engine.request.Priority` names them.
PRIORITIES: Final = ("interactive", "background")
# Rows of a step are counted up to these bounds; more are `more`.
ROW_BOUNDS: Final = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Series:
    """One series.

    Attributes:
        name: Without the prefix; a counter's ends in `_total`, which the text form demands.
        kind: Its type.
        meaning: One sentence.
        labels: The names of its labels.
        buckets: Upper bounds of a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Prometheus stores it; a histogram has it with `_bucket`, `_sum` and `_count`."""
        return PREFIX + self.name


HTTP_REQUESTS = Series(
    "http_requests_total",
    "counter",
    "Answered requests. `route` is a template such as `/jobs/{job_id}`, or `none` for an unknown path; "
    "`status` 499: the client left before the answer began.",
    ("method", "route", "status"),
)
HTTP_SECONDS = Series(
    "http_request_seconds",
    "histogram",
    "Time from the head of a request to the end of its answer.",
    ("method", "route"),
    REQUEST_BUCKETS_S,
)
HTTP_IN_FLIGHT = Series("http_requests_in_flight", "gauge", "Requests being answered, this one included.")
HTTP_RECEIVED = Series("http_request_bytes_total", "counter", "Bytes of bodies that arrived.", ("route",))
HTTP_SENT = Series("http_response_bytes_total", "counter", "Bytes of bodies that were sent.", ("route",))
PROBLEMS = Series(
    "problems_total",
    "counter",
    "Errors answered, by the `code` of the problem: refused keys, quotas, full queues, invalid requests.",
    ("code", "status"),
)
IMAGES = Series("generated_images_total", "counter", "Images in inline answers of `/generate`.")

ROWS = Series(
    "engine_rows_total",
    "counter",
    "Rows of the forwards of steps: `used` by requests, and `padding`.",
    ("model", "kind"),
)
STEP_SECONDS = Series(
    "engine_step_seconds",
    "histogram",
    "Duration of a step; `rows` is the upper bound of its rows: 1, 2, 4, 8, 16, 32 or `more`. On a GPU a step ends "
    "when the one before it is done.",
    ("model", "rows"),
    STEP_BUCKETS_S,
)
DECODE_SECONDS = Series(
    "engine_decode_seconds",
    "histogram",
    "Duration of finishing a request in a turn of its own: decoding an image.",
    ("model",),
    STEP_BUCKETS_S,
)
ADMITTED = Series("engine_admitted_total", "counter", "Requests that began.", ("model", "priority"))
WAIT_SECONDS = Series(
    "engine_wait_seconds",
    "histogram",
    "Time from submission to admission.",
    ("priority",),
    REQUEST_BUCKETS_S,
)
QUEUE = Series("engine_queue_requests", "gauge", "Requests that wait to be admitted.", ("model", "priority"))
QUEUE_AGE = Series("engine_queue_oldest_seconds", "gauge", "Age of the oldest of them; 0 for none.", ("priority",))
IN_FLIGHT = Series("engine_requests", "gauge", "Requests in the engine, waiting ones included.", ("model",))
ENGINE_UP = Series("engine_up", "gauge", "1 while the device thread runs.")

MODEL_READY = Series("model_ready", "gauge", "1 for a model that is loaded, 0 while it loads or failed.", ("model",))
MODEL_BYTES = Series("model_bytes", "gauge", "Bytes of the weight files of a loaded model of the pack.", ("model",))
BACKBONES = Series("backbones_loaded", "gauge", "Backbones that were loaded on demand.")
BACKBONE_BYTES = Series("backbones_bytes", "gauge", "Bytes of their weights.")
WEIGHTS = Series(
    "weights_loaded",
    "gauge",
    "What is in memory beside the default diffusion model: other diffusion models (`kind` is `model`), and sets of "
    "LoRAs and embeddings (`adapters`).",
    ("kind",),
)
WEIGHTS_BYTES = Series(
    "weights_bytes", "gauge", "Bytes of their weights, of those being loaded too, as counted for the bound.", ("kind",)
)
WEIGHTS_LIMIT = Series(
    "weights_limit_bytes", "gauge", "Their bound: `FOXHOUND_MODELS_MB`, or `FOXHOUND_LORAS_MB`.", ("kind",)
)
WEIGHTS_WAITING = Series("weights_waiting_requests", "gauge", "Requests that wait for room for theirs.", ("kind",))
WEIGHTS_LOADS = Series(
    "weights_loads_total", "counter", "Loads of them; `result` is `loaded` or `failed`.", ("kind", "result")
)
WEIGHTS_EVICTIONS = Series(
    "weights_evictions_total", "counter", "Those dropped for others, or with the model that they belong to.", ("kind",)
)

DATABASE_UP = Series(
    "database_up", "gauge", "1 if the database answered; else the series of jobs, workers and records are absent."
)
JOBS = Series(
    "jobs",
    "gauge",
    "Jobs with a record, of all nodes, by kind and status; up to 10 s old, ended ones up to 60 s.",
    ("kind", "status"),
)
JOB_AGE = Series("job_oldest_queued_seconds", "gauge", "Age of the oldest queued job.", ("kind",))
WORKERS = Series(
    "workers", "gauge", "Workers of all nodes: `live`, or `late` without a heartbeat for too long.", ("state",)
)
HEARTBEAT_AGE = Series("worker_heartbeat_age_seconds", "gauge", "Time since the latest heartbeat of any worker.")

STORED = Series(
    "storage_bytes",
    "gauge",
    "Bytes of stored files by kind, as recorded; of features, exports and fine-tuning as on the disk. Up to 5 min old.",
    ("kind",),
)
FREE = Series("storage_free_bytes", "gauge", "Free bytes on the disk of the data folder.")
RESERVE = Series("storage_reserve_bytes", "gauge", "Free bytes below which new work gets 507.")

BUILD = Series(
    "build_info",
    "gauge",
    "Always 1; version, pack and device of the node.",
    ("version", "pack", "pack_revision", "device", "dtype"),
)

SERIES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Series))

# Of `prometheus_client.ProcessCollector`; Linux only.
PROCESS: Final = {
    "process_cpu_seconds_total": ("counter", "CPU time of the API process."),
    "process_resident_memory_bytes": ("gauge", "Resident memory of the API process."),
    "process_virtual_memory_bytes": ("gauge", "Virtual memory of the API process."),
    "process_open_fds": ("gauge", "Open file descriptors of the API process."),
    "process_max_fds": ("gauge", "Their limit."),
    "process_start_time_seconds": ("gauge", "When the API process started, in Unix seconds."),
}


def model_family(name: str) -> str:
    """Return the label of a model of the engine: of one that was loaded on demand, what it is instead of its name."""
    return name.partition(":")[0]


def rows_bound(rows: int) -> str:
    """Return the label of a step of `rows` rows, >= 1."""
    return next((str(bound) for bound in ROW_BOUNDS if rows <= bound), "more")


def counter(registry: CollectorRegistry, series: Series) -> Counter:
    """Return a new counter."""
    return Counter(series.full_name, series.meaning, series.labels, registry=registry)


def gauge(registry: CollectorRegistry, series: Series) -> Gauge:
    """Return a new gauge."""
    return Gauge(series.full_name, series.meaning, series.labels, registry=registry)


def histogram(registry: CollectorRegistry, series: Series) -> Histogram:
    """Return a new histogram."""
    return Histogram(series.full_name, series.meaning, series.labels, registry=registry, buckets=series.buckets)
