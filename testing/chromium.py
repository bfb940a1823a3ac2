"""Headless Chromium for tests, and a second server whose pages are of another origin than a node's.

Chromium comes from the system's packages; Playwright only steers it. It resolves every name under `.test` and
`evil.example` to 127.0.0.1, so that one machine has several sites.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright

from testing.waiting import PATIENCE_S

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--no-sandbox",  # root has none in a container; nothing but the tests' own pages is opened
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP evil.example 127.0.0.1",
    # Chromium's own guard of local addresses is off: the node must hold without it, as other browsers have none.
    "--disable-features=LocalNetworkAccessChecks",
)
# The policy's violations, which only the page's own document sees.
_WATCH = """
window.violations = [];
document.addEventListener('securitypolicyviolation', event => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class Tab:
    """A page in a browser context of its own.

    Attributes:
        page: Playwright's page.
        responses: Every response that the page has received.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.responses: list[Response] = []
        self.page.on("response", lambda answer: self.responses.append(answer))

    def open(self, url: str) -> int:
        """Load a page and return the status of its answer."""
        answer = self.page.goto(url)
        assert answer is not None
        return answer.status

    def run(self, script: str, *arguments: object) -> object:
        """Call a JavaScript function in the page, and return what it returns; an error becomes `{"failed": name}`."""
        return self.page.evaluate(
            "async ([script, ...args]) => { try { return await eval(script)(...args) }"
            " catch (error) { return {failed: error.name} } }",
            [script, *arguments],
        )

    def status_of(self, path: str, method: str = "POST") -> int:
        """Return the status of the newest answer to a request of the page, of those that the browser let through."""
        found = [one for one in self.responses if one.url.endswith(path) and one.request.method == method]
        assert found, f"no {method} {path}"
        return found[-1].status

    def violations(self) -> list[str]:
        """Return what the page's content security policy has blocked."""
        blocked: list[str] = self.page.evaluate("window.violations")
        return blocked


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium without a window."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.fail("Chromium is not installed. Install it, as with `apt-get install chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_OPTIONS))
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser) -> Iterator[Tab]:
    """Open a tab that shares nothing with others."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_S * 1_000)
    context.add_init_script(_WATCH)
    yield Tab(context)
    context.close()


class _BlankPages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>another site</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def other_site() -> Iterator[int]:
    """Serve empty pages under every path; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _BlankPages) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
