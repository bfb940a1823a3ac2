"""The gallery and the page of an image, in a browser."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.db.session import Database
from bench.console.__main__ import fill
from testing.chromium import Tab
from testing.node import Node
from testing.uploads import create_empty
from testing.uploads import fill as upload
from testing.waiting import wait_until
from tests.browser.hands import HOSTILE, Console

pytestmark = pytest.mark.browser

NUM_TILES = "document.querySelectorAll('#grid .tile').length"


@pytest.fixture
def console(tab: Tab, node: Node) -> Iterator[Console]:
    console = Console(tab, node)
    yield console
    console.check()


def make(node: Node, prompt: str) -> str:
    answer = node.http.post("/generate", json={"prompt": prompt, "num_inference_steps": 1, "seed": 5})
    assert answer.status_code == 200, answer.text
    image_id: str = answer.json()["images"][0]["id"]
    return image_id


def test_a_picture_is_found_and_its_page_tells_how_it_was_made(console: Console, node: Node) -> None:
    image_id = make(node, f"a fox {HOSTILE}")
    make(node, "a dog")
    dataset_id = create_empty(node.http)["id"]
    upload(node.http, dataset_id)
    page = console.open("/ui/gallery")
    console.until(f"{NUM_TILES} === 14")
    console.until("[...document.querySelectorAll('#grid img')].every(image => image.naturalWidth > 0)")
    page.locator("[name=prompt]").fill("fox onerror")
    console.until(f"{NUM_TILES} === 1")
    page.wait_for_url("**/ui/gallery?prompt=fox+onerror*")
    page.locator("[name=prompt]").fill("zebra")
    page.get_by_text("No image matches these filters.").wait_for()
    page.locator("[name=prompt]").fill("")
    page.locator("[name=dataset_id]").select_option(dataset_id)
    console.until(f"{NUM_TILES} === 12")
    page.locator("[name=class]").select_option("dog")
    console.until(f"{NUM_TILES} === 6")
    page.reload()
    console.until(f"{NUM_TILES} === 6")
    page.locator("[name=dataset_id]").select_option("")
    console.until(f"{NUM_TILES} === 14")

    page.locator("#grid a").first.focus()
    page.keyboard.press("End")
    console.until(f"document.activeElement.getAttribute('href') === '/ui/images/{image_id}'")
    page.keyboard.press("Enter")
    page.locator("#lineage").get_by_text(HOSTILE).wait_for()
    page.locator("textarea[name=labels]").fill(f"fox, {HOSTILE}")
    page.get_by_role("button", name="Score").click()
    page.get_by_role("rowheader", name="fox").wait_for()
    page.get_by_role("button", name="Classify").click()
    console.until("document.querySelectorAll('tbody tr').length >= 4")
    again = page.get_by_role("button", name="Make it again")
    page.locator("[name=num_inference_steps]").fill("2")
    again.click()
    page.get_by_role("img", name="Made again, seed 5").wait_for()
    newest = node.http.get("/generations").json()["items"][0]
    assert (newest["parameters"]["num_inference_steps"], newest["parameters"]["seed"]) == (2, 5)
    node.http.delete(f"/generations/{newest['id']}")
    page.get_by_text("Settings in the file").click()
    page.locator("#texts pre").first.wait_for()
    assert page.locator("#texts pre").first.inner_text().startswith(f"a fox {HOSTILE}\nSteps: 1")

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/ui/gallery")
    console.until(f"{NUM_TILES} === 13")
    page.goto(f"{console.url}/ui/images/{image_id}")
    page.get_by_text("There is no image with this id.").wait_for()


def test_a_dataset_of_20_000_images_is_scrolled_and_filtered(console: Console, node: Node) -> None:
    with closing(Database(node.settings.resolved_database_url)) as db:
        dataset_id = fill(db, 20_000, 20_000)
    page = console.open(f"/ui/datasets/{dataset_id}")
    tiles = "document.querySelectorAll('#tiles [role=option]').length"
    page.get_by_text("20,000 images in 4 classes").wait_for()
    console.until(f"{tiles} === 48")
    for number in range(1, 6):
        page.locator("#tiles").get_by_role("button", name="Older").click()
        page.locator("#tiles").get_by_text(f"{48 * number + 1} to {48 * (number + 1)}").wait_for()
        assert page.evaluate(tiles) == 48
    page.locator("#filters [name=class]").select_option("owl")
    page.locator("#tiles").get_by_text("1 to 48").wait_for()
    page.locator("#filters [name=split]").select_option("test")
    page.get_by_text("No image matches.").wait_for()
    page.locator("#filters [name=split]").select_option("train")
    page.locator("#filters [name=review]").select_option("unreviewed")
    page.locator("#filters [name=max_clip_score]").fill("20")
    page.locator("#filters [name=max_clip_score]").press("Tab")
    page.get_by_text("No image matches.").wait_for()  # an owl has an odd number, and so at least 21
    page.locator("#filters [name=max_clip_score]").fill("")
    page.locator("#filters [name=max_clip_score]").press("Tab")
    page.locator("#tiles").get_by_text("1 to 48").wait_for()

    console.open(f"/ui/gallery?dataset_id={dataset_id}")
    console.until(f"{NUM_TILES} > 10")
    for wanted in range(500, 3_001, 500):
        while int(page.locator("#told").inner_text().split()[0]) < wanted:
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)))")
        assert page.evaluate(NUM_TILES) < 200
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("[data-index='0']").wait_for()


def test_the_document_stays_small_however_many_images_there_are(console: Console, node: Node) -> None:
    with closing(Database(node.settings.resolved_database_url)) as db:
        fill(db, 3_000, 100)
    page = console.open("/ui/gallery")
    console.until(f"{NUM_TILES} > 10")

    def is_at_the_end() -> bool:
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        assert page.evaluate(NUM_TILES) < 200
        return page.locator("#told").inner_text() == "3000 images"

    wait_until(is_at_the_end)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.get_by_role("listitem").and_(page.locator("[data-index='2999']")).wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("[data-index='0']").wait_for()
    assert page.evaluate(NUM_TILES) < 200
