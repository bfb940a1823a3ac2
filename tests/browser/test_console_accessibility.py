"""axe-core finds nothing serious on the console's pages, light and dark."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from testing.chromium import tab
from testing.uploads import create_empty, fill
from tests.browser.conftest import Start
from tests.browser.hands import Console

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[1] / "clients/node_modules/axe-core/axe.min.js"
RUN = """async () => {
  const {violations} = await axe.run(document, {resultTypes: ['violations']});
  return violations.filter(one => ['serious', 'critical'].includes(one.impact))
    .map(one => `${one.id}: ${one.nodes.map(node => node.html).slice(0, 3).join(' ')}`);
}"""


@pytest.fixture
def axe() -> str:
    assert AXE.is_file(), "axe-core is not installed. Run `make test-browser`, or `npm ci` in tests/clients."
    return AXE.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_serious_fault_of_accessibility(start: Start, browser: Browser, axe: str, scheme: Any) -> None:
    node = start()
    made = node.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()
    dataset_id = create_empty(node.http)["id"]
    fill(node.http, dataset_id)
    image, dataset = f"/ui/images/{made['images'][0]['id']}", f"/ui/datasets/{dataset_id}"
    with tab(browser) as opened:
        console = Console(opened, node)
        console.page.emulate_media(color_scheme=scheme)
        paths = ("/ui", "/ui/gallery", image, "/ui/datasets", dataset, "/ui/training", "/ui/compare", "/ui/node")
        for path in (*paths, "/ui/sign-in"):
            page = console.open(path)
            page.wait_for_load_state("networkidle")
            page.evaluate(f"() => {{ const module = undefined, define = undefined; {axe}\n }}")
            assert page.evaluate(RUN) == [], path
        console.check()
