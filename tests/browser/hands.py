"""A node whose jobs the test does itself, step by step, and the console's pages of it in a tab."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from app.db.session import Database
from app.jobs import record
from app.jobs.handler import JobHandler
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.services.evaluation.job import EvaluateJob
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from testing.chromium import Tab
from testing.fake_jobs import run_job
from testing.node import Node
from testing.waiting import wait_until

# Names that would run a script, or break a page, if anything took them for HTML.
HOSTILE = "<img src=x onerror=window.ran=1>"

_DROP = """([selector, files]) => {
  const carried = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
    carried.items.add(new File([bytes], name, {type: 'image/png'}));
  }
  const drop = new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true});
  document.querySelector(selector).dispatchEvent(drop);
}"""


class Hands:
    """Does the jobs of a node in the calling thread, in place of a worker."""

    def __init__(self, node: Node) -> None:
        settings = node.settings
        self.http = node.http
        self.db, folder = Database(settings.resolved_database_url), DataFolder(settings.data_dir)
        self._client = NodeClient(settings.engine_socket)
        images = DatasetImages(self.db, folder, self._client, chunk_size=3)
        features = FeatureCache(folder.features)
        handlers: list[JobHandler] = [
            DatasetJob(images),
            TrainJob(self.db, folder, features, self._client, images),
            EvaluateJob(self.db, folder, features, self._client),
        ]
        self._handlers = {handler.kind: handler for handler in handlers}

    def begin(self, job_id: str) -> None:
        """Start a job without doing anything of it."""
        with self.db.transaction() as session:
            record.begin(session, job_id)

    def advance(self, job_id: str) -> None:
        """Count one step of a job, which its followers are told."""
        with self.db.transaction() as session:
            record.advance(session, job_id, 1)

    def work(self, job_id: str) -> None:
        """Do a job from its start to its end."""
        handler = self._handlers[self.http.get(f"/jobs/{job_id}").json()["kind"]]
        self.begin(job_id)
        result = run_job(self.db, job_id, handler)
        with self.db.transaction() as session:
            record.finish(session, job_id, handler.on_end, completed=True, result=result)

    def newest_job(self, kind: str) -> str:
        """Return the id of the newest job of a kind."""
        job_id: str = self.http.get("/jobs", params={"kind": kind}).json()["items"][0]["id"]
        return job_id

    def made(self, name: str, classes: list[str], **changes: Any) -> dict[str, Any]:
        """Create a dataset and do its job."""
        entries = [{"name": one, "prompts": [f"a photo of a {one[:40]}"]} for one in classes]
        body = {"name": name, "seed": 7, "classes": entries, "generation": {"num_inference_steps": 1}, **changes}
        answer = self.http.post("/datasets", json=body)
        assert answer.status_code == 202, answer.text
        self.work(answer.json()["job_id"])
        read: dict[str, Any] = self.http.get(f"/datasets/{answer.json()['id']}").json()
        return read

    def trained(self, dataset_id: str, **changes: Any) -> str:
        """Train a model on a dataset and return its id."""
        answer = self.http.post("/train-jobs", json={"dataset_id": dataset_id, "epochs": 2, **changes})
        assert answer.status_code == 202, answer.text
        self.work(answer.json()["id"])
        model_id: str = self.http.get(f"/train-jobs/{answer.json()['id']}").json()["model_id"]
        return model_id

    def close(self) -> None:
        self._client.close()
        self.db.close()


class Console:
    """The console of a node in a tab, and what goes wrong in it."""

    def __init__(self, tab: Tab, node: Node) -> None:
        self.tab = tab
        self.page: Page = tab.page
        self.url = f"http://127.0.0.1:{node.http.base_url.port}"
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", lambda line: self._hear(line.type, line.text))
        self.page.on("request", lambda sent: self._follow(sent.url))

    def _hear(self, kind: str, text: str) -> None:
        # Chromium reports each refused request so; what the page makes of it is the test's matter.
        if kind == "error" and "Failed to load resource" not in text:
            self.faults.append(f"console: {text}")

    def _follow(self, url: str) -> None:
        if not url.startswith((self.url, "blob:", "data:")):
            self.faults.append(f"request: {url}")

    def open(self, path: str) -> Page:
        assert self.tab.open(f"{self.url}{path}") == 200
        return self.page

    def until(self, condition: str) -> None:
        """Wait until an expression in the page is true; Playwright's own way to wait needs `eval` in the page."""
        wait_until(lambda: bool(self.page.evaluate(f"() => Boolean({condition})")))

    def check(self) -> None:
        """Assert that nothing went wrong: no error, no foreign host, no violation, no script out of a name."""
        assert self.faults == []
        assert self.tab.violations() == []
        assert self.page.evaluate("window.ran === undefined")


@pytest.fixture
def hands(node: Node) -> Iterator[Hands]:
    hands = Hands(node)
    yield hands
    hands.close()


@pytest.fixture
def console(tab: Tab, node: Node) -> Iterator[Console]:
    """The console, in which nothing may have gone wrong at the test's end."""
    console = Console(tab, node)
    yield console
    console.check()


def drop(page: Page, selector: str, files: list[tuple[str, bytes]]) -> None:
    """Drop files, each a name and its bytes, onto an element."""
    page.evaluate(_DROP, [selector, [(name, base64.b64encode(data).decode()) for name, data in files]])
