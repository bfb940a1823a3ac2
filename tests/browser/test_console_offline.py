"""Every page of the console with the network cut off: it says so, and recovers by itself."""

from collections.abc import Mapping

import pytest
from playwright.sync_api import Page

from tests.browser.hands import Console, Hands, console, hands

__all__ = ["console", "hands"]  # fixtures
pytestmark = pytest.mark.browser


@pytest.fixture
def pages(hands: Hands) -> Mapping[str, str]:
    """Every page, with an element that it has once it has read what it shows."""
    made = hands.made("fox-dog", ["fox", "dog"], train_per_class=3, test_per_class=2)
    models = [hands.trained(made["id"], name=name) for name in ("first", "second")]
    image = hands.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]["id"]
    return {
        "/ui": "#results article",
        "/ui/gallery": "#grid .tile",
        f"/ui/images/{image}": "img.whole",
        "/ui/datasets": "#list tbody tr",
        f"/ui/datasets/{made['id']}": "#tiles [role=option]",
        "/ui/training": "#models tbody tr",
        f"/ui/train-jobs/{models[0]}": "#metrics table.matrix",
        f"/ui/models/{models[0]}": "#metrics table.matrix",
        f"/ui/compare?ids={','.join(models)}": "#comparison dl.bars",
        "/ui/node": "#models tbody tr",
        "/ui/sign-in": "#whether:has-text('without a key')",
    }


def shown(page: Page, selector: str) -> None:
    page.locator(selector).first.wait_for()


def test_every_page_says_that_the_network_is_gone_and_that_it_is_back(
    console: Console, pages: Mapping[str, str]
) -> None:
    for path, content in pages.items():
        page = console.open(path)
        shown(page, content)
        page.context.set_offline(True)
        page.locator("#notice").get_by_text("The node does not answer").wait_for()
        assert page.locator(content).count() > 0  # what was read stays
        page.context.set_offline(False)
        page.locator("#notice").wait_for(state="hidden")


def test_every_page_that_opens_without_the_node_fills_itself_once_it_answers(
    console: Console, pages: Mapping[str, str]
) -> None:
    page = console.page
    for path, content in pages.items():
        page.route(lambda url: "/ui" not in url, lambda route: route.abort())
        console.open(path)
        page.locator("#notice").get_by_text("The node does not answer").wait_for()
        assert page.locator(content).count() == 0
        page.unroute_all()
        shown(page, content)  # nobody has clicked
        page.locator("#notice").wait_for(state="hidden")
        console.until("!document.querySelector('main .state.error')")
