"""Writes the tables of docs/configuration.md and docs/errors.md from the code: `make docs`.

`tests/unit/test_docs.py` fails where a committed page differs.
"""

from pathlib import Path

from app.config import Settings
from app.error_codes import ErrorCode

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


PAGES = {"configuration.md": configuration, "errors.md": errors}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
