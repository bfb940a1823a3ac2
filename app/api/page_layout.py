"""The HTML of the small pages that the API serves itself: the service, and its error codes. Pure.

A page loads nothing and runs no script; its policy allows its one style sheet by hash.
"""

import base64
import hashlib
from html import escape

from app.schemas.pages import ErrorCodeRead, ErrorCodesRead, ServiceRead

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:3rem auto;padding:0 1rem;color:#222;"
    "background:#fff}a{color:#a63c00}code{font-size:1.05em}table{border-collapse:collapse}"
    "td,th{padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}a{color:#ff9d5c}td,th{border-color:#444}}"
)
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def service_page(service: ServiceRead) -> str:
    """Return the page of `/`."""
    links = service.links
    items = [
        (links.documentation, "Documentation of every route"),
        (links.openapi, "OpenAPI document"),
        (links.errors, "Error codes"),
        (links.capabilities, "Models, device and limits of this node"),
        (links.ready, "State of this node"),
    ]
    listed = "".join(f'<li><a href="{escape(path)}">{escape(text)}</a></li>' for path, text in items)
    body = f"<p>{escape(service.description)} Version {escape(service.version)}.</p><ul>{listed}</ul>"
    return _page(service.name, body)


def errors_page(codes: ErrorCodesRead) -> str:
    """Return the page with every error code."""
    rows = "".join(
        f'<tr><td><a href="{escape(read.url)}"><code>{escape(read.code)}</code></a></td>'
        f"<td>{escape(read.statuses)}</td><td>{_prose(read.meaning)}</td></tr>"
        for read in codes.items
    )
    head = "<tr><th>Code</th><th>Status</th><th>Meaning</th></tr>"
    return _page("Error codes", f"<table>{head}{rows}</table>")


def error_page(read: ErrorCodeRead) -> str:
    """Return the page of one error code."""
    where = (
        "The <code>detail</code> of the answer says what to do, <code>errors</code> names each faulty value, and "
        "<code>request_id</code> finds the request in the log of the service."
    )
    body = (
        f"<p>{_prose(read.meaning)}</p><p>HTTP status: {escape(read.statuses)}.</p><p>{where}</p>"
        '<p><a href="/docs/errors">All error codes</a></p>'
    )
    return _page(read.code, body)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - Foxhound</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _prose(text: str) -> str:
    """Return text in which words between backticks are code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
