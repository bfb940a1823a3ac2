"""The Studio in a browser: images are made, followed, cancelled and made again, and copied calls run as they are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testing.chromium import Tab
from testing.node import Node
from testing.waiting import PATIENCE_S
from tests.browser.hands import HOSTILE, Console

pytestmark = pytest.mark.browser

# What shells and Python read in strings.
AWKWARD = 'it\'s a "fox" $HOME `id` \\ !\n""" 🦊 é'
CLIPBOARD = "() => { window.copied = []; navigator.clipboard.writeText = async text => { window.copied.push(text) } }"


@pytest.fixture
def console(tab: Tab, node: Node) -> Iterator[Console]:
    console = Console(tab, node)
    yield console
    console.check()


def test_images_are_made_and_made_again_with_another_seed(console: Console, node: Node) -> None:
    page = console.open("/ui")
    page.get_by_text("The results appear here").wait_for()
    page.locator("[name=scheduler] option").nth(1).wait_for(state="attached")
    page.locator("#go").click()
    page.locator("#problem").get_by_text("Write what the images should show.").wait_for()
    page.locator("[name=prompt]").fill(HOSTILE)
    page.locator("[name=negative_prompt]").fill("a dog")
    page.locator("[name=num_inference_steps]").fill("3")
    page.locator("[name=num_images_per_prompt]").fill("2")
    page.locator("[name=seed]").fill("41")
    page.locator("[name=prompt]").press("Control+Enter")
    page.locator("#results figure img").nth(1).wait_for()
    assert page.locator("#results h2").first.inner_text() == HOSTILE
    assert "seed 41 · 3 steps · guidance 7.5" in page.locator("#results p").first.inner_text()
    captions = page.locator("#results figcaption").all_inner_texts()
    assert [caption.split("\n")[0] for caption in captions] == ["seed 41", "seed 42"]
    assert page.locator("[name=seed]").input_value() == ""  # not locked: the next images have another one
    page.get_by_role("button", name="Again with another seed").click()
    page.locator("#results article").nth(1).wait_for()
    made = [generation["parameters"] for generation in node.http.get("/generations").json()["items"]]
    assert [one["prompt"] for one in made] == [HOSTILE, HOSTILE]
    assert (made[1]["seed"], made[0]["seed"] != 41, made[0]["num_images_per_prompt"]) == (41, True, 2)
    page.reload()
    page.locator("#results article").nth(1).wait_for()
    assert page.locator("[name=prompt]").input_value() == HOSTILE


def test_a_request_is_followed_step_by_step_and_cancelled(console: Console, node: Node) -> None:
    page = console.open("/ui")
    page.locator("[name=prompt]").fill("a fox")
    page.locator("[name=num_inference_steps]").fill("5")
    node.models.diffusion.gate.clear()
    page.locator("#go").click()
    assert node.models.diffusion.stepping.wait(PATIENCE_S)
    page.locator("#go:disabled").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Cancelled.").wait_for()
    node.models.diffusion.gate.set()
    page.locator("#go:enabled").wait_for()
    assert node.http.get("/generations").json()["items"] == []


def test_an_image_is_made_from_another_with_previews_step_by_step(console: Console, node: Node) -> None:
    first = node.http.post("/generate", json={"prompt": "a dog", "num_inference_steps": 1}).json()["images"][0]["id"]
    page = console.open("/ui")
    page.get_by_role("button", name="Use as init image").click()
    page.locator("#init-shown:not([hidden])").wait_for()
    console.until("document.querySelector('#init-shown').naturalWidth > 0")
    page.locator("[name=prompt]").fill("a fox")
    page.locator("[name=num_inference_steps]").fill("8")
    page.locator("[name=strength]").fill("0.5")
    page.locator("#go").click()
    page.locator("#results article").nth(1).wait_for()
    # The request's own place is hidden by now, and keeps what it showed last.
    console.until("document.querySelector('#run img.preview').src.startsWith('data:image/png;base64,')")
    console.until("document.querySelector('#run img.preview').naturalWidth === 8")  # a pixel for each of the latents
    newest = node.http.get("/generations").json()["items"][0]["parameters"]
    assert (newest["init_image"]["image_id"], newest["strength"]) == (first, 0.5)
    page.locator("#init-clear").click()
    page.locator("#init-shown").wait_for(state="hidden")


def test_who_waits_sees_how_many_go_before(console: Console, node: Node) -> None:
    page = console.open("/ui")
    page.locator("[name=prompt]").fill("a fox")
    page.locator("[name=num_inference_steps]").fill("2")
    node.models.diffusion.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(node.http.post, "/generate", json={"prompt": "a dog", "num_inference_steps": 1})
        assert node.models.diffusion.stepping.wait(PATIENCE_S)
        page.locator("#go").click()
        page.locator("#run").get_by_text("Waiting: 1 image goes before it").wait_for()
        node.models.diffusion.gate.set()
        assert other.result(PATIENCE_S).status_code == 200
    page.locator("#results h2").get_by_text("a fox").wait_for()


def test_what_the_node_refuses_is_said_at_its_field(console: Console) -> None:
    page = console.open("/ui")
    page.locator("[name=prompt]").fill("a fox")
    page.locator("[name=seed]").fill("x")
    page.locator("#go").click()
    page.locator("#problem").get_by_text("Seed: This must be a whole number").wait_for()
    console.until("document.activeElement.name === 'seed'")
    page.locator("[name=seed]").fill("1")
    page.locator("[name=width]").fill("63")
    page.locator("#go").click()
    page.locator("#problem").get_by_text("Width: ").wait_for()


def test_the_copied_calls_run_as_they_are(console: Console, node: Node, tmp_path: Path) -> None:
    page = console.open("/ui")
    page.evaluate(CLIPBOARD)
    page.locator("[name=prompt]").fill(AWKWARD)
    page.locator("[name=num_inference_steps]").fill("2")
    page.get_by_text("Copy as code").click()
    for language in ("curl", "Python", "TypeScript"):
        page.locator("#copies").get_by_role("button", name=f"Copy as {language}").click()
    console.until("window.copied.length === 3")
    copied = page.evaluate("window.copied")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for command in (["bash", "-c", copied[0]], [sys.executable, "-c", copied[1]]):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
    made = [generation["parameters"] for generation in node.http.get("/generations").json()["items"]]
    assert [(one["prompt"], one["num_inference_steps"]) for one in made] == [(AWKWARD, 2), (AWKWARD, 2)]
    assert len(list(tmp_path.glob("*.png"))) == 1
    assert 'import { generateImages } from "foxhound-client"' in copied[2]


def test_models_are_offered_where_there_are_several(console: Console, node: Node) -> None:
    page = console.open("/ui")
    page.locator("[name=scheduler] option").nth(1).wait_for(state="attached")
    assert page.locator("[name=model]").is_hidden(), "there is only the default one"
    facts = node.http.get("/capabilities").json()
    own = facts["models"]["diffusion"]
    more = {"name": "comic", "is_default": False, "native_size": 128, "min_side": 64, "max_side": 256}
    facts["models"]["comic"] = {**own, "drawing": {**own["drawing"], **more, "default_noise_scheduler": "euler"}}
    page.route("**/capabilities", lambda route: route.fulfill(json=facts))
    page.reload()
    page.locator("[name=model]").select_option("comic")
    assert page.locator("[name=width]").get_attribute("placeholder") == "128"
    assert page.locator("[name=scheduler] option").first.inner_text() == "default (euler)"
    page.locator("[name=prompt]").fill("a fox")
    page.locator("#go").click()
    page.locator("#problem").get_by_text("The node has no model of this name").wait_for()
    page.locator("[name=model]").select_option("")
    page.locator("#go").click()
    page.locator("#results figure img").first.wait_for()
