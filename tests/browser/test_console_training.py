"""The console's pages of training: a job its curves, the tables of its test, a dropped file, a comparison."""

import pytest

from app.db.models import TrainEpoch
from testing.trained_models import add_epochs
from testing.uploads import picture
from tests.browser.hands import HOSTILE, Console, Hands, console, drop, hands

__all__ = ["console", "hands"]  # fixtures
pytestmark = pytest.mark.browser


def test_a_classifier_is_trained_read_and_asked(hands: Hands, console: Console) -> None:
    made = hands.made("fox-dog", [HOSTILE, "dog"], train_per_class=4, test_per_class=3)
    page = console.open(f"/ui/training?dataset={made['id']}")
    page.locator("#start:not([disabled])").wait_for()
    assert page.locator("[name=dataset_id]").input_value() == made["id"]
    page.get_by_text("Settings", exact=True).click()
    console.until("document.querySelectorAll('[name=backbone] option').length > 1")
    page.locator("[name=epochs]").fill("3")
    page.locator("#form [name=name]").fill("Bad Name")
    page.locator("#start").press("Enter")
    page.locator("#faults li").wait_for()
    assert page.locator("#form [name=name]").get_attribute("aria-invalid") == "true"
    page.locator("#form [name=name]").fill("mine")
    page.locator("#start").press("Enter")

    page.wait_for_url("**/ui/train-jobs/*")
    page.locator("#job .badge.queued").wait_for()
    page.get_by_text("The curves begin with the first epoch.").wait_for()
    hands.work(hands.newest_job("train"))
    page.locator("#job .badge.succeeded").wait_for()
    page.locator("#curves svg[aria-label^='Loss after epoch 3: train ']").wait_for()
    assert page.locator("#curves svg").count() == 2
    matrix = page.locator("#metrics table.matrix")
    matrix.wait_for()
    cells = matrix.locator("td:has(.small)").all_inner_texts()
    assert len(cells) == 4
    counts = [int(cell.split()[0]) for cell in cells]
    assert (sum(counts), counts[0] + counts[1]) == (6, 3)
    assert all("%" in cell for cell in cells)  # intervals
    assert matrix.locator("th[scope=row]").first.inner_text() == HOSTILE
    assert page.locator("#metrics .baselines dt").all_inner_texts()[0] == "This model"
    assert page.locator("#metrics .baselines dt").count() >= 3

    page.get_by_role("link", name="Open the model").click()
    page.wait_for_url("**/ui/models/*")
    page.locator("#drop .drop").wait_for()
    drop(page, "#drop .drop", [(f"{HOSTILE}.png", picture(5))])
    answer = page.locator("#answer article")
    answer.locator("dl.bars dt").nth(1).wait_for()
    assert sorted(answer.locator("dl.bars dt").all_inner_texts()) == sorted([HOSTILE, "dog"])
    answer.locator(".nearest a").nth(5).wait_for()  # why: six of the eight training images, with class and similarity
    console.until("[...document.querySelectorAll('.nearest img')].every(one => one.naturalWidth > 0)")
    labels = answer.locator(".nearest a span.wrap").all_inner_texts()
    assert set(labels) <= {HOSTILE, "dog"}
    similarities = [float(text) for text in answer.locator(".nearest a span.muted").all_inner_texts()]
    assert similarities == sorted(similarities, reverse=True)
    drop(page, "#drop .drop", [("text.png", b"no image")])
    page.locator("#answer [role=alert]").wait_for()
    page.locator("#card summary").press("Enter")
    page.locator("#card-text pre").wait_for()
    assert made["name"] in page.locator("#lineage").inner_text()
    console.until("document.querySelectorAll('#evaluations tbody tr').length === 1")


def test_curves_grow_while_the_job_runs_and_it_is_cancelled(hands: Hands, console: Console) -> None:
    made = hands.made("fox-dog", ["fox", "dog"], train_per_class=2, test_per_class=1)
    job_id = hands.http.post("/train-jobs", json={"dataset_id": made["id"]}).json()["id"]
    hands.begin(job_id)
    page = console.open(f"/ui/train-jobs/{job_id}")
    page.locator("#job .badge.running").wait_for()
    assert page.locator("#curves svg").count() == 0
    add_epochs(hands.db, job_id, 2, is_validated=False)
    hands.advance(job_id)
    page.locator("#curves svg").nth(1).wait_for()
    with hands.db.snapshot() as session:
        assert session.get(TrainEpoch, (job_id, 2)) is not None
    page.locator("[data-action=cancel]").press("Enter")
    console.until("document.querySelector('#job-state').textContent.length > 0")
    assert hands.http.get(f"/jobs/{job_id}").json()["status"] in ("running", "cancelled")


def test_mistakes_link_to_their_images_and_two_models_are_compared(hands: Hands, console: Console) -> None:
    made = hands.made("fox-dog", ["fox", "dog"], train_per_class=3, test_per_class=4)
    swapped = hands.made("dog-fox", ["dog", "fox"], train_per_class=3, test_per_class=0)
    first = hands.trained(made["id"], name="first")
    second = hands.trained(made["id"], name="second", epochs=1)
    other = hands.trained(swapped["id"], name="other")
    page = console.open("/ui/training")
    for name in ("first", "second"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare 2 models").click()
    page.wait_for_url("**/ui/compare?ids=*")
    page.get_by_text("cannot be told from").wait_for()
    assert sorted(page.locator("#comparison dl.bars dt").all_inner_texts()) == ["first", "second"]
    page.locator("#class-bars dl.bars").wait_for()
    console.open(f"/ui/compare?ids={first},{other}")
    page.get_by_text("no image that all of them were tested on").or_(
        page.locator("#comparison [role=alert]")
    ).wait_for()
    console.open("/ui/compare")
    page.get_by_text("Choose two models or more").wait_for()

    console.open(f"/ui/models/{second}")
    page.locator("#mistakes:not([aria-busy]) > *").first.wait_for()
    wrong = hands.http.get(f"/train-jobs/{second}/report").json()["mistakes"]
    assert page.locator("#mistakes a").count() == len(wrong)
    page.locator("#evaluate button").wait_for()
    page.locator("#evaluate [name=dataset_id]").select_option(swapped["id"])
    page.locator("#evaluate [name=split]").select_option("train")
    page.locator("#evaluate button").press("Enter")
    page.locator("#evaluate-state .badge.queued").wait_for()
    hands.work(hands.newest_job("evaluate"))
    console.until("document.querySelectorAll('#evaluations tbody tr').length === 2")
    page.get_by_role("button", name="Read the evaluation on dog-fox, train").click()
    page.locator("#evaluation").get_by_text("On dog-fox, train").wait_for()
    page.locator("#evaluation table.matrix").wait_for()
    hands.http.delete(f"/datasets/{made['id']}")
    drop(page, "#drop .drop", [("one.png", picture(6))])
    page.locator("#answer").get_by_text("The training images are gone").wait_for()


def test_the_pages_are_read_on_a_phone_and_say_what_is_missing(hands: Hands, console: Console) -> None:
    page = console.open("/ui/training")
    page.get_by_text("There is no dataset to train on yet.").wait_for()
    page.get_by_text("There are no models yet.").wait_for()
    console.open("/ui/models/none")
    page.get_by_text("There is no model with this id or name.").wait_for()
    console.open("/ui/train-jobs/none")
    page.get_by_text("There is no train job with this id or name.").wait_for()
    made = hands.made("fox-dog", [HOSTILE, "w" * 120], train_per_class=2, test_per_class=2)
    model = hands.trained(made["id"])
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/ui/training", f"/ui/train-jobs/{model}", f"/ui/models/{model}", "/ui/node"):
        console.open(path)
        page.locator("main table, main .matrix").first.wait_for()
        console.until("document.documentElement.scrollWidth <= window.innerWidth")
