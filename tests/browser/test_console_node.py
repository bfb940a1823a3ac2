"""The console's page of the node: models, engine, jobs with their controls."""

import pytest

from testing.chromium import Tab
from tests.browser.conftest import Start
from tests.browser.hands import Console, Hands, console, hands

__all__ = ["console", "hands"]  # fixtures
pytestmark = pytest.mark.browser


def test_the_node_shows_its_models_and_its_jobs_are_controlled(hands: Hands, console: Console) -> None:
    hands.made("done", ["fox", "dog"], train_per_class=1, test_per_class=0)
    body = {"name": "slow", "classes": [{"name": one, "prompts": ["p"]} for one in ("fox", "dog")]}
    job_id = hands.http.post("/datasets", json=body).json()["job_id"]
    page = console.open("/ui/node")
    page.locator("#models .badge.ready").first.wait_for()
    page.locator("#engine .tally").first.wait_for()
    page.locator("#limits dd").first.wait_for()
    row = page.locator(f"tr[data-id='{job_id}']")
    row.locator("[data-action=pause]").press("Enter")
    row.locator(".badge.paused").wait_for()
    row.locator("[data-action=resume]").click()
    row.locator(".badge.queued").wait_for()
    row.locator("[data-action=cancel]").click()
    row.locator(".badge.cancelled").wait_for()
    assert hands.http.get(f"/jobs/{job_id}").json()["status"] == "cancelled"
    row.locator("[data-action=retry]").click()
    page.locator("#filters [name=status]").select_option("queued")
    console.until("document.querySelectorAll('#jobs tbody tr').length === 1")
    page.locator("#filters [name=kind]").select_option("train")
    page.get_by_text("No job matches.").wait_for()


def test_a_node_that_stops_says_so(start: Start, tab: Tab) -> None:
    node = start()
    page = Console(tab, node).open("/ui/node")
    page.locator("#models table").wait_for()
    page.context.set_offline(True)
    page.get_by_text("The node does not answer.").first.wait_for()
    assert page.locator("#models table").count() == 1  # what was read stays
    page.context.set_offline(False)
    page.locator("#notice").wait_for(state="hidden")
