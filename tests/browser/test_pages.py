"""The node's own pages in a real browser: they work under their content security policies, and in no frame."""

import pytest

from testing.chromium import Tab
from testing.uploads import CLASSES, create_empty, fill
from testing.workbench import Workbench
from tests.api.test_train_reports import trained
from tests.browser.conftest import Start

pytestmark = pytest.mark.browser

ALL_IMAGES_ARE_SHOWN = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = 'eager';
  await Promise.all(images.map(image => image.decode()));
  return images.length;
}"""


def test_the_documentation_page_works_under_its_policy(start: Start, tab: Tab) -> None:
    node = start()
    assert tab.open(f"http://127.0.0.1:{node.http.base_url.port}/docs") == 200
    operation = tab.page.locator("[id$=generateImages]").first
    operation.locator(".opblock-summary-control").click()
    operation.locator("button.try-out__btn").click()
    operation.locator("textarea.body-param__text").fill('{"prompt": "a fox", "num_inference_steps": 1}')
    operation.locator("tr[data-code='200'] select.content-type").first.select_option("image/png")
    operation.locator("button.execute").click()
    shown = operation.locator(".live-responses-table img")
    shown.wait_for()
    assert shown.evaluate("async image => { await image.decode(); return image.naturalWidth }") == 64
    assert tab.status_of("/generate?priority=0") == 200
    assert tab.violations() == []


def test_the_policy_of_the_documentation_page_stops_a_script_inside(start: Start, tab: Tab) -> None:
    tab.open(f"http://127.0.0.1:{start().http.base_url.port}/docs")
    tab.page.locator(".opblock").first.wait_for()
    run = (
        "() => { const one = document.createElement('script'); one.text = 'window.ran = 1'; document.body.append(one) }"
    )
    tab.page.evaluate(run)
    tab.page.wait_for_function("window.violations.length")
    assert tab.page.evaluate("window.ran === undefined")
    assert tab.violations()[0].startswith("script-src-elem inline")


def test_the_report_of_a_dataset_and_its_sheet_are_shown_under_their_policies(bench: Workbench, tab: Tab) -> None:
    dataset_id = create_empty(bench.http)["id"]
    fill(bench.http, dataset_id)
    node = f"http://127.0.0.1:{bench.http.base_url.port}"
    assert tab.open(f"{node}/datasets/{dataset_id}/report") == 200
    assert tab.page.evaluate(ALL_IMAGES_ARE_SHOWN) > 0
    assert tab.page.evaluate("getComputedStyle(document.body).maxWidth") == "960px"  # its own style sheet: 60rem
    assert tab.violations() == []
    assert tab.open(f"{node}/datasets/{dataset_id}/contact-sheet.png") == 200
    assert tab.page.evaluate(ALL_IMAGES_ARE_SHOWN) == 1


def test_the_report_of_a_train_job_is_shown_under_its_policy(bench: Workbench, tab: Tab) -> None:
    dataset_id = create_empty(bench.http)["id"]
    fill(bench.http, dataset_id)
    job_id = trained(bench, dataset_id, CLASSES)
    assert tab.open(f"http://127.0.0.1:{bench.http.base_url.port}/train-jobs/{job_id}/report") == 200
    assert tab.page.locator("svg").count() > 0
    assert tab.page.evaluate(ALL_IMAGES_ARE_SHOWN) > 0  # thumbnails
    assert tab.violations() == []


@pytest.mark.parametrize("path", ["/docs", "/jobs"])
def test_no_other_page_frames_the_node(start: Start, tab: Tab, other_port: int, path: str) -> None:
    node = f"http://127.0.0.1:{start(cors_origins='*').http.base_url.port}"
    tab.open(f"http://127.0.0.1:{other_port}/")
    show = """url => new Promise(resolve => {
      const frame = document.createElement('iframe');
      frame.onload = () => resolve();
      frame.src = url;
      document.body.append(frame);
    })"""
    tab.run(show, f"{node}{path}")
    assert tab.status_of(path, "GET") == 200
    assert tab.page.frames[1].url.startswith("chrome-error://")
