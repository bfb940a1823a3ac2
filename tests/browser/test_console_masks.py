"""Masks in the Studio: painted by keyboard, by pointer and as a rectangle, or dropped, and refused at their place."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from testing.node import Node
from testing.waiting import PATIENCE_S
from tests.browser.hands import Console, console, drop

__all__ = ["console"]  # a fixture
pytestmark = pytest.mark.browser

SIDE = 64
# The mask that the page has, as rows of greys.
GREYS = """async () => {
  const shown = document.querySelector('#mask-shown');
  await shown.decode();
  const canvas = document.createElement('canvas');
  canvas.width = shown.naturalWidth;
  canvas.height = shown.naturalHeight;
  const context = canvas.getContext('2d');
  context.drawImage(shown, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  const row = y => Array.from({length: canvas.width}, (_, x) => data[4 * (y * canvas.width + x)]);
  return Array.from({length: canvas.height}, (_, y) => row(y));
}"""


def greys(page: Page) -> np.ndarray:
    page.get_by_role("dialog").wait_for(state="detached")
    page.locator("#mask-shown:not([hidden])").wait_for()
    return np.array(page.evaluate(GREYS))


def png(width: int, height: int, white: int) -> bytes:
    """Return a mask whose first columns are white."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, :white] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def pixels_of(node: Node, image_id: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(node.http.get(f"/images/{image_id}").content)).convert("RGB"))


def begun(console: Console, node: Node) -> tuple[Page, str]:
    """Open the Studio with an image to start from; return the page and the image's id."""
    made = node.http.post("/generate", json={"prompt": "a dog", "num_inference_steps": 1})
    first: str = made.json()["images"][0]["id"]
    page = console.open(f"/ui?init={first}")
    page.locator("#init-shown:not([hidden])").wait_for()
    page.locator("#results > article").first.wait_for()
    page.locator("[name=prompt]").fill("a fox")
    page.locator("[name=num_inference_steps]").fill("4")
    return page, first


def editor(page: Page) -> Locator:
    page.locator("#mask-paint").press("Enter")
    dialog = page.get_by_role("dialog", name="Paint a mask")
    dialog.wait_for()
    return dialog


def test_a_mask_is_painted_by_keyboard_and_keeps_the_rest_of_the_image(console: Console, node: Node) -> None:
    page, first = begun(console, node)
    dialog = editor(page)
    console.until("document.activeElement.matches('canvas')")
    dialog.get_by_role("button", name="Use this mask").click()
    dialog.get_by_text("Nothing is painted yet").wait_for()
    canvas = dialog.get_by_role("application")
    for key in ("Shift+ArrowLeft", "Shift+ArrowLeft", "ArrowDown", "Space"):
        canvas.press(key)
    dialog.get_by_role("button", name="Use this mask").press("Enter")
    mask = greys(page)
    assert mask.shape == (SIDE, SIDE)
    assert (mask[SIDE // 2 + 2, SIDE // 4], mask[5, 5], mask[SIDE // 2, 3 * SIDE // 4]) == (255, 0, 0)
    page.locator("[name=strength]").press("End")
    page.locator("#go").click()
    page.locator("#results article").nth(1).wait_for()
    newest = node.http.get("/generations").json()["items"][0]
    parameters = newest["parameters"]
    assert parameters["mask"]["image_id"] is None
    assert (parameters["init_image"]["image_id"], parameters["strength"], parameters["mask_blur"]) == (first, 1.0, 0.0)
    before, after = pixels_of(node, first), pixels_of(node, newest["images"][0]["id"])
    assert (before[mask == 0] == after[mask == 0]).all()
    assert (before[mask == 255] != after[mask == 255]).any()


def test_a_mask_is_drawn_undone_erased_and_given_up(console: Console, node: Node) -> None:
    page, _ = begun(console, node)
    dialog = editor(page)
    dialog.get_by_label("Right").fill("50")
    dialog.get_by_role("button", name="Add this rectangle").click()
    dialog.get_by_label("Erase").check()
    dialog.get_by_label("Bottom").fill("25")
    dialog.get_by_role("button", name="Add this rectangle").click()
    dialog.get_by_role("button", name="Clear").click()
    dialog.get_by_role("button", name="Undo").click()
    dialog.get_by_role("button", name="Use this mask").click()
    expected = np.zeros((SIDE, SIDE), int)
    expected[SIDE // 4 :, : SIDE // 2] = 255
    assert (greys(page) == expected).all()

    before = page.locator("#mask-shown").get_attribute("src")
    dialog = editor(page)  # what was painted is gone on with
    box = dialog.get_by_role("application").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.8 * box["height"], steps=4)
    page.mouse.up()
    dialog.get_by_role("button", name="Use this mask").click()
    console.until(f"document.querySelector('#mask-shown').getAttribute('src') !== '{before}'")
    mask = greys(page)
    console.until("document.activeElement.id === 'mask-paint'")
    assert (mask[SIDE // 2, 3 * SIDE // 4], mask[SIDE // 2, SIDE // 4], mask[5, SIDE // 4]) == (255, 255, 0)
    assert mask[SIDE // 4, 3 * SIDE // 4] == 0

    kept = page.locator("#mask-shown").get_attribute("src")
    editor(page).get_by_role("button", name="Clear").click()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.locator("#mask-shown").get_attribute("src") == kept
    page.get_by_role("button", name="Remove the mask").click()
    page.locator("#mask-shown").wait_for(state="hidden")


def test_a_dropped_mask_is_blurred_inverted_and_refused_at_its_place(console: Console, node: Node) -> None:
    page, first = begun(console, node)
    drop(page, "#mask", [("mask.png", png(32, 32, 16))])
    page.locator("#mask-shown:not([hidden])").wait_for()
    page.locator("#go").click()
    page.locator("#mask").get_by_text("The mask must have the size of init_image, which is 64 x 64 pixels.").wait_for()
    page.locator("#problem").get_by_text("Mask: ").wait_for()
    console.until("document.activeElement.id === 'mask-file'")
    page.locator("#mask-file").set_input_files(
        {"name": "mask.png", "mimeType": "image/png", "buffer": png(SIDE, SIDE, SIDE // 2)}
    )
    page.locator("#problem").wait_for(state="hidden")
    page.locator("[name=mask_blur]").fill("65")
    page.locator("#go").click()
    page.locator("label", has=page.locator("[name=mask_blur]")).locator(".fault").wait_for()
    page.locator("[name=mask_blur]").fill("2.5")
    page.get_by_label("Invert the mask").check()
    page.locator("#go").click()
    page.locator("#results article").nth(1).wait_for()
    newest = node.http.get("/generations").json()["items"][0]["parameters"]
    assert (newest["mask_blur"], newest["mask_invert"], newest["strength"]) == (2.5, True, 0.75)

    # A stored image as the mask is known again from the record of what it made.
    mask = node.http.post("/generate", json={"prompt": "a dog", "num_inference_steps": 1, "seed": 5}).json()["images"][
        0
    ]
    body = {"prompt": "a fox", "num_inference_steps": 4, "seed": 9, "strength": 0.33, "mask_blur": 1.5}
    body |= {"init_image": {"image_id": first}, "mask": {"image_id": mask["id"]}}
    made = node.http.post("/generate", json=body).json()["images"][0]
    page = console.open(f"/ui?from={made['id']}")
    page.locator("#mask-shown:not([hidden])").wait_for()
    for name, value in {"strength": "0.33", "mask_blur": "1.5", "seed": "9"}.items():
        expect(page.locator(f"[name={name}]")).to_have_value(value, timeout=PATIENCE_S * 1_000)
    page.locator("#results > article").first.wait_for()
    count = page.locator("#results > article").count()
    page.locator("#go").click()
    page.locator("#results > article").nth(count).wait_for()
    again = node.http.get("/generations").json()["items"][0]
    assert again["images"][0]["sha256"] == made["sha256"]
    page.get_by_role("button", name="Remove", exact=True).click()
    page.locator("#mask").wait_for(state="hidden")
