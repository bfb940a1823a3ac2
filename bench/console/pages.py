"""Measures each page of the console in Chromium: its weight, its requests, and when something is there to see.

`python -m bench.console.pages [--write]`: serves a node with models without weights and a few records, opens each page
three times with an empty cache, and prints a table of medians; `--write` puts it into docs/console.md. Bytes are those
of the transfer, heads and gzip included; pictures are the node's small copies.
"""

import argparse
import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from app.db import migrations
from app.db.session import Database
from app.jobs.migrations import migrate_job_engine
from app.storage.layout import DataFolder
from testing.chromium import chromium, tab
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.trained_models import add_model
from testing.uploads import CLASSES, create_empty, fill

DOCUMENT = Path(__file__).parents[2] / "docs/console.md"
PLACE = re.compile(r"(?<=<!-- pages -->\n).*?(?=<!-- /pages -->)", re.DOTALL)
NUM_LOADS = 3
NUM_IMAGES = 24
_WATCH = """
window.seen = {first: 0, largest: 0, task: 0};
const watch = (type, take) => {
  new PerformanceObserver(list => list.getEntries().forEach(take)).observe({type, buffered: true});
};
watch('paint', one => { if (one.name === 'first-contentful-paint') window.seen.first = one.startTime; });
watch('largest-contentful-paint', one => { window.seen.largest = one.startTime; });
watch('longtask', one => { window.seen.task = Math.max(window.seen.task, one.duration); });
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a page.

    Attributes:
        own_bytes: Of the page, its styles and its scripts, as transferred.
        all_bytes: Of all answers.
        requests: Their number.
        first_ms: Until something was painted, in ms after the navigation began.
        largest_ms: Until the largest text or picture was painted.
        task_ms: The longest task that kept the page from reacting; 0 where none took 50 ms.
    """

    own_bytes: float
    all_bytes: float
    requests: float
    first_ms: float
    largest_ms: float
    task_ms: float


@contextmanager
def serving() -> Iterator[tuple[Node, dict[str, str]]]:
    """Serve a node, and yield it with the paths of its pages by their names."""
    with tempfile.TemporaryDirectory() as name:
        url = f"sqlite:///{name}/foxhound.db"
        with migrations.migration_lock(url):
            migrations.migrate(url)
        migrate_job_engine(url)
        with serve(make_settings(Path(name) / "data", url), FakeModels()) as node:
            yield node, _filled(node)


def _filled(node: Node) -> dict[str, str]:
    http = node.http
    for number in range(NUM_IMAGES):
        made = http.post("/generate", json={"prompt": f"a fox {number}", "num_inference_steps": 1, "seed": number})
        image_id = made.json()["images"][0]["id"]
    dataset_id = create_empty(http)["id"]
    fill(http, dataset_id)
    with closing(Database(node.settings.resolved_database_url)) as db:
        folder = DataFolder(node.settings.data_dir)
        models = [add_model(db, folder, CLASSES, dataset_id=dataset_id) for _ in range(2)]
    return {
        "Studio": "/ui",
        "Gallery": "/ui/gallery",
        "Image": f"/ui/images/{image_id}",
        "Datasets": "/ui/datasets",
        "Dataset": f"/ui/datasets/{dataset_id}",
        "Training": "/ui/training",
        "Train job": f"/ui/train-jobs/{models[0]}",
        "Model": f"/ui/models/{models[0]}",
        "Comparison": f"/ui/compare?ids={','.join(models)}",
        "Node": "/ui/node",
        "Sign in": "/ui/sign-in",
    }


def load(browser: Browser, url: str) -> Load:
    """Open a page with an empty cache and return what it took."""
    sizes: dict[str, float] = {}
    urls: dict[str, str] = {}
    with tab(browser) as opened:
        page = opened.page
        page.add_init_script(_WATCH)
        devtools = page.context.new_cdp_session(page)
        devtools.on(
            "Network.requestWillBeSent", lambda event: urls.update({event["requestId"]: event["request"]["url"]})
        )
        devtools.on(
            "Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]})
        )
        devtools.send("Network.enable")
        page.goto(url)
        page.wait_for_load_state("networkidle")
        seen: dict[str, Any] = page.evaluate("window.seen")
    sent = {key: urls[key] for key in urls if urls[key].startswith("http")}
    own = sum(sizes.get(key, 0) for key, sent_url in sent.items() if "/ui" in sent_url)
    total = sum(sizes.get(key, 0) for key in sent)
    return Load(own, total, len(sent), seen["first"], seen["largest"], seen["task"])


def row(name: str, loads: list[Load]) -> str:
    """Return the line of a page: the medians of its loads."""

    def median(field: str) -> float:
        return float(statistics.median(getattr(one, field) for one in loads))

    sizes = f"{median('own_bytes') / 1_000:.0f} | {median('all_bytes') / 1_000:.0f} | {median('requests'):.0f}"
    task = median("task_ms")
    return f"| {name} | {sizes} | {median('first_ms'):.0f} | {median('largest_ms'):.0f} | {task:.0f} |".replace(
        "| 0 |", "| < 50 |"
    )


def main() -> None:
    """Measure every page and print the table, or write it into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/console.md")
    asked = parser.parse_args()
    lines = [
        "| page | own files, kB | with data, kB | requests | first paint, ms | largest paint, ms | longest task, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with serving() as (node, paths), chromium() as browser:
        url = f"http://127.0.0.1:{node.http.base_url.port}"
        load(browser, f"{url}/ui")  # the first page of a node waits for the OpenAPI document
        for name, path in paths.items():
            lines.append(row(name, [load(browser, f"{url}{path}") for _ in range(NUM_LOADS)]))
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    if asked.write:
        DOCUMENT.write_text(PLACE.sub(lambda _: table, DOCUMENT.read_text("utf-8")), "utf-8")
    else:
        print(table)


if __name__ == "__main__":
    main()
