"""The console's pages of datasets: made from a form, followed, reviewed by keyboard, filled by drop."""

import json

import pytest
from playwright.sync_api import Route

from testing.uploads import picture
from testing.waiting import wait_until
from tests.browser.hands import HOSTILE, Console, Hands, console, drop, hands

__all__ = ["console", "hands"]  # fixtures
pytestmark = pytest.mark.browser


def test_a_dataset_is_made_from_a_form_and_ten_images_are_reviewed_by_keyboard(hands: Hands, console: Console) -> None:
    page = console.open("/ui/datasets")
    page.get_by_text("There are no datasets yet").wait_for()
    page.keyboard.press("Tab")  # the link that skips the navigation
    page.locator("#new").focus()
    page.keyboard.press("Enter")
    page.locator("[name=name]").first.fill("fox-dog")
    rows = page.locator(".class-row")
    for row, name in ((rows.nth(0), HOSTILE), (rows.nth(1), "dog")):
        row.locator("input").fill(name)
        row.locator("textarea").fill(f"a photo of a {name}")
    page.locator("[name=train_per_class]").first.fill("6")
    page.locator("[name=test_per_class]").first.fill("2")
    page.get_by_text("Settings of the images").click()
    page.locator("[name=num_inference_steps]").fill("1")
    console.until("document.querySelector('#plan-count')?.textContent === '16 images'")
    assert HOSTILE in page.locator("#plan").inner_text()  # as text, among the sample prompts
    page.locator("#create").click()
    page.wait_for_url("**/ui/datasets/*-*")
    page.locator("#job .badge.queued").wait_for()
    hands.work(hands.newest_job("dataset"))
    page.locator("#head .badge.ready").wait_for()
    console.until("document.querySelectorAll('#tiles [role=option]').length === 16")
    console.until("document.querySelectorAll('#newest img').length === 12")

    dataset_id = page.url.rpartition("/")[2]
    page.locator("#tiles [role=listbox]").focus()
    for key in "arraraarra":
        page.keyboard.press(key)
    page.keyboard.press("u")
    console.until("document.querySelector('#counts').textContent.includes('4 accepted, 5 rejected')")
    console.until("document.querySelectorAll('.tile.accepted').length === 4")
    page.keyboard.press("r")
    console.until("document.querySelector('#counts').textContent.includes('4 accepted, 6 rejected')")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    # The page counts a decision before the node has it.
    wait_until(lambda: hands.http.get(f"/datasets/{dataset_id}").json()["reviews"] == {"accepted": 4, "rejected": 6})
    assert hands.http.get(f"/datasets/{dataset_id}").json()["num_images"] == 10
    newest = hands.http.get(f"/datasets/{dataset_id}/images").json()["items"]
    assert [one["review"] for one in newest[:10]] == [
        *("accepted", "rejected", "rejected", "accepted", "rejected"),
        *("accepted", "accepted", "rejected", "rejected", "rejected"),
    ]

    page.locator("#filters [name=review]").select_option("unreviewed")
    console.until("document.querySelectorAll('#tiles [role=option]').length === 6")
    page.locator("#filters [name=split]").select_option("test")
    console.until("document.querySelectorAll('#tiles [role=option]').length < 6")
    page.locator("#filters [name=view]").select_option("worst")
    console.until("document.querySelector('#report .tally') && document.querySelector('#tiles [role=option]')")


def test_a_review_that_is_refused_is_taken_back(hands: Hands, console: Console) -> None:
    made = hands.made("taken", ["fox", "dog"], train_per_class=2, test_per_class=0)
    page = console.open(f"/ui/datasets/{made['id']}")
    page.locator("#tiles [role=option]").first.wait_for()
    job = hands.http.post("/train-jobs", json={"dataset_id": made["id"]}).json()
    page.keyboard.press("r")
    page.get_by_text("A job works on this dataset").wait_for()
    assert page.locator(".tile.rejected").count() == 0
    hands.http.post(f"/jobs/{job['id']}/cancel")
    page.locator("[data-review=rejected]").click()
    console.until("document.querySelector('#counts').textContent.includes('1 rejected')")


def test_files_are_dropped_and_each_says_what_became_of_it(hands: Hands, console: Console) -> None:
    made = hands.made("uploads", ["fox", "dog"], train_per_class=1, test_per_class=0)
    page = console.open(f"/ui/datasets/{made['id']}")
    page.locator("#upload .drop").wait_for()
    page.locator("#upload-class").select_option("dog")
    page.locator("#upload-split").select_option("test")
    files = [(f"{HOSTILE}.png", picture(1)), ("again.png", picture(1)), ("text.png", b"no image")]
    drop(page, "#upload .drop", files)
    page.get_by_text("1 of 3 files were stored.").wait_for()
    lines = page.locator("#upload-results li").all_inner_texts()
    assert any(HOSTILE in line and "stored" in line for line in lines)
    assert any(line.startswith("again.png: The dataset has this image already.") for line in lines)
    assert any(line.startswith("text.png") for line in lines)
    console.until("document.querySelectorAll('#tiles [role=option]').length === 3")
    page.locator("#extend [name=train_per_class]").fill("2")
    page.get_by_text("4 images, ").wait_for()


def test_a_job_is_paused_resumed_and_cancelled_from_the_page(hands: Hands, console: Console) -> None:
    body = {"name": "slow", "classes": [{"name": one, "prompts": ["p"]} for one in ("fox", "dog")]}
    made = hands.http.post("/datasets", json=body).json()
    page = console.open(f"/ui/datasets/{made['id']}")
    page.locator("[data-action=pause]").click()
    page.locator("#job .badge.paused").wait_for()
    page.locator("[data-action=resume]").click()
    page.locator("#job .badge.queued").wait_for()
    page.locator("[data-action=cancel]").press("Enter")
    page.locator("#job .badge.cancelled").wait_for()
    assert hands.http.get(f"/jobs/{made['job_id']}").json()["status"] == "cancelled"
    page.locator("[data-action=retry]").click()
    page.locator("#job .badge.queued").wait_for()
    assert hands.newest_job("dataset") != made["job_id"]


def test_the_lists_hold_a_page_and_say_what_is_wrong(hands: Hands, console: Console) -> None:
    for number in range(23):
        fields = {"name": f"d{number}", "classes": [{"name": one, "prompts": ["p"]} for one in ("fox", "dog")]}
        assert hands.http.post("/datasets", json={**fields, "train_per_class": 0, "test_per_class": 0}).is_success
    page = console.open("/ui/datasets")
    page.get_by_text("1 to 20 of 23").wait_for()
    page.get_by_role("button", name="Older").click()
    page.get_by_text("21 to 23 of 23").wait_for()
    assert page.locator("#list tbody tr").count() == 3
    page.locator("#filters [name=status]").select_option("failed")
    page.get_by_text("No dataset matches.").wait_for()
    page.locator("#filters [name=status]").select_option("")
    page.locator("#filters [name=name]").fill("d7")
    console.until("document.querySelectorAll('#list tbody tr').length === 1")

    for path in ("**/livez", "**/datasets?**"):  # the page asks /livez until the node answers, and then reads again
        page.route(path, lambda route: route.abort())
    page.locator("#filters [name=name]").fill("")
    page.get_by_text("The node does not answer. Check").wait_for()
    page.unroute("**/datasets?**")
    page.route("**/datasets?**", _fail)
    page.unroute("**/livez")
    page.get_by_text("Too much at once.").wait_for()
    page.unroute("**/datasets?**")
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("1 to 20 of 23").wait_for()
    console.open("/ui/datasets/no-such-dataset")
    page.get_by_text("There is no dataset with this id or name.").wait_for()


def _fail(route: Route) -> None:
    body = json.dumps({"status": 503, "code": "queue_full", "detail": "Too much at once."})
    route.fulfill(status=503, content_type="application/problem+json", body=body)


def test_the_pages_are_read_on_a_phone(hands: Hands, console: Console) -> None:
    made = hands.made("phone", [HOSTILE, "w" * 120], train_per_class=3, test_per_class=1)
    console.page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/ui/datasets", f"/ui/datasets/{made['id']}"):
        page = console.open(path)
        page.get_by_text("phone").first.wait_for()
        console.until("document.documentElement.scrollWidth <= window.innerWidth")
