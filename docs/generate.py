"""Writes docs/configuration.md, docs/errors.md and docs/monitoring.md from the code: `make docs`.

`tests/unit/test_docs.py` fails where a committed page differs.
"""

from pathlib import Path

from app.config import Settings
from app.error_codes import ErrorCode
from app.metrics.series import PREFIX, PROCESS, SERIES

DOCS = Path(__file__).parent

CONFIGURATION = """# Configuration

Settings are environment variables; a `.env` file in the working directory works too. `foxhound serve --help` lists
the same. Wrong values stop the start, and all of them are named at once; so do a port in use and an absent GPU.

| variable | meaning | default |
| --- | --- | --- |
"""

ERRORS = """# Errors

Every error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, `instance`, `code` and
`request_id`. An invalid request has `errors`, with a JSON Pointer to each fault. `code` is the stable word to switch
on; where a more exact code is known, it replaces the general one of its status. Neither the input nor an exception's
text is repeated. 503 comes with `Retry-After`.

Codes of jobs stand in the job's `error`; those of the faults of a request in `errors`.

| code | status | meaning |
| --- | --- | --- |
"""


MONITORING = """# Monitoring

`GET /metrics` has the series below in Prometheus' text form. [grafana/prometheus.yml](grafana/prometheus.yml) reads it,
[grafana/alerts.yml](grafana/alerts.yml) has alerts, [grafana/foxhound.json](grafana/foxhound.json) is a dashboard to
import into Grafana. With keys on, a scrape needs a key of the scope `admin`.

Each node counts for itself: add its counters up over nodes. Series of jobs, workers and stored bytes come from the
shared records, so all nodes report the same: take their maximum. The worker process serves no metrics. Its work is in
the engine's series (`priority="background"`), in `foxhound_jobs` and in `foxhound_workers`.

A scrape takes some milliseconds. It waits at most 1 s for each figure of the database, and leaves out the series that
it cannot have; `foxhound_database_up` is 0 then. No label has a word of a client.

## Alerts

| alert | what to do |
| --- | --- |
| `FoxhoundNodeDown`, `FoxhoundEngineDown` | Read the node's log, and restart the node. |
| `FoxhoundModelNotReady` | `/readyz` has the reason, with the command that helps. |
| `FoxhoundDatabaseDown` | Jobs wait and continue by themselves once the database answers. |
| `FoxhoundNoWorker` | Start `foxhound serve` or `foxhound worker`; jobs of dead workers are taken over. |
| `FoxhoundErrors` | Look for lines of the log with `"status": 500`, then for the others with their `request_id`. |
| `FoxhoundQueueOld`, `FoxhoundJobsWait` | More work arrives than is done: add a node, or lower limits and quotas. |
| `FoxhoundJobsFail` | `GET /jobs?status=failed` has the errors, the worker's log their causes under the `job_id`. |
| `FoxhoundDiskSoonFull` | `foxhound storage report` shows what takes the room. |
| `FoxhoundKeysRefused` | A client uses an expired key, or tries keys. |

## The log

Both processes log to standard error. `FOXHOUND_LOG_FORMAT=json` writes an object a line: `time` (UTC), `level`,
`logger`, `message`, `process`, `node`, `pid`; where they are known `request_id` and `job_id`; for an answered request
`method`, `route`, `status`, `ms` and `bytes`; for an exception `exception`. The text format has the same on lines for
people; further lines of an exception are indented.

A request's id is the client's `X-Request-Id`, if it has 1 to 64 letters, digits, dots, hyphens and underscores, else a
new one. The answer, its problem and every line have it. A job keeps the id of the request that made it (`request_id` in
`GET /jobs/{id}`), and every line about the job has both, in the worker and in the engine that works for it.

Nothing that users write is logged: no prompts, names, labels, file names, paths or keys. Exceptions are logged with
types and places but without their texts, except while models load; messages of other libraries are withheld where they
could quote values. Line ends and control characters are escaped.

## Traces

`pip install 'foxhound[otel]'` and `OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318` (or `FOXHOUND_OTEL=true`) send
spans by OTLP over HTTP; the other `OTEL_*` variables work too. Spans are a request (`POST /generate`), its requests to
the engine (`engine` with `queued`, `steps`, `decode`), a `job` and a `chunk`, with `foxhound.request_id` and
`foxhound.job_id`. A client's `traceparent` is continued.

## Series

| series | type | labels | meaning |
| --- | --- | --- | --- |
"""


def monitoring() -> str:
    """Return the page of all series."""
    rows: list[tuple[str, str, tuple[str, ...], str]] = [
        *((series.full_name, series.kind, series.labels, series.meaning) for series in SERIES),
        *((PREFIX + name, kind, (), meaning) for name, (kind, meaning) in PROCESS.items()),
    ]
    lines = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |\n"
        for name, kind, labels, meaning in rows
    ]
    return MONITORING + "".join(lines)


def configuration() -> str:
    """Return the page of all settings."""
    rows = []
    for name, field in Settings.model_fields.items():
        meaning = (field.description or "").replace("|", r"\|")
        default = "not set" if field.default is None else f"`{field.default}`"
        rows.append(f"| `FOXHOUND_{name.upper()}` | {meaning} | {default} |\n")
    return CONFIGURATION + "".join(rows)


def errors() -> str:
    """Return the page of all error codes."""
    return ERRORS + "".join(f"| `{code.value}` | {code.statuses} | {code.meaning} |\n" for code in ErrorCode)


PAGES = {"configuration.md": configuration, "errors.md": errors, "monitoring.md": monitoring}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
