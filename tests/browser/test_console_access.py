"""The console with keys, without a node, and switched off, in a browser."""

from collections.abc import Iterator

import pytest

from app.access.caller import Scope
from testing.api_keys import new_key
from testing.chromium import Tab
from testing.node import Node
from testing.waiting import wait_until
from tests.browser.conftest import Start
from tests.browser.hands import Console

pytestmark = pytest.mark.browser

PAGES = ("/ui", "/ui/gallery", "/ui/datasets", "/ui/training", "/ui/node")


@pytest.fixture
def console(tab: Tab, node: Node) -> Iterator[Console]:
    console = Console(tab, node)
    yield console
    console.check()


def test_without_a_key_the_pages_say_so_and_with_one_they_work(console: Console, node: Node, database_url: str) -> None:
    image = node.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]["id"]
    reader, maker = (
        new_key(database_url, "reader", Scope.READ),
        new_key(database_url, "maker", Scope.READ, Scope.GENERATE),
    )
    wait_until(lambda: node.http.get("/capabilities").status_code == 401)  # the first key is seen within seconds
    page = console.page
    for path in (*PAGES, f"/ui/images/{image}"):
        console.open(path)
        page.locator("#notice").get_by_role("link", name="Sign in").wait_for()
    page.locator("#notice").get_by_role("link", name="Sign in").click()
    page.get_by_text("This node needs a key.").wait_for()
    page.locator("[name=key]").fill("fxh_wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The node does not know this key").wait_for()
    page.locator("[name=key]").fill(reader.key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ui/images/{image}")
    console.until("document.querySelector('img.whole')?.naturalWidth > 0")
    assert page.locator("img.whole").get_attribute("src").startswith("blob:")  # type: ignore[union-attr]
    console.open("/ui/gallery")
    console.until("document.querySelector('#grid img')?.naturalWidth > 0")
    console.open("/ui")
    page.locator("[name=prompt]").fill("a fox")
    page.locator("#go").click()
    page.locator("#problem").get_by_text("scope generate").wait_for()
    page.locator("#account").click()
    page.locator("[name=key]").fill(maker.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui")
    page.locator("[name=num_inference_steps]").fill("1")
    page.locator("#go").click()
    console.until("document.querySelectorAll('#results figure').length === 2")
    stored = page.evaluate("JSON.stringify([localStorage, document.cookie])")
    assert maker.key not in stored
    assert maker.key not in page.content()


@pytest.mark.parametrize(
    "target", ["//evil.example/ui", "https://evil.example/ui", "javascript:alert(1)", "/docs", "/uix"]
)
def test_signing_in_leads_to_pages_of_the_console_alone(tab: Tab, start: Start, target: str) -> None:
    node = start(allow_anonymous="true")
    key = new_key(node.settings.resolved_database_url, "one", Scope.READ)
    console = Console(tab, node)
    page = console.page
    tab.page.goto(f"{console.url}/ui/sign-in?next={target}")
    page.locator("[name=key]").fill(key.key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{console.url}/ui")
    console.check()


def test_a_lost_node_is_said_and_found_again(console: Console) -> None:
    page = console.open("/ui/gallery")
    page.get_by_text("There are no images yet").wait_for()
    page.context.set_offline(True)
    page.locator("[name=prompt]").fill("fox")
    page.locator("#end").get_by_text("The node does not answer").wait_for()
    page.locator("#notice").get_by_text("The node does not answer").wait_for()
    page.context.set_offline(False)
    page.get_by_text("No image matches these filters.").wait_for()
    console.until("document.querySelector('#notice').hidden")


def test_the_first_page_of_a_browser_is_the_console(console: Console) -> None:
    console.open("/")
    assert console.page.url == f"{console.url}/ui"
