"""The Studio's further settings in a browser: sent, kept, refused at their fields, and taken over from an image."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from safetensors.torch import save_file

from app.modelpacks.loading import load_diffusion
from app.schemas.generations import GenerateRequest
from testing.chromium import Tab
from testing.lora_files import CONVOLUTIONS, lora_tensors, write_lora
from testing.node import Node, make_settings, serve
from testing.tiny_diffusion import models_with_few_steps
from testing.waiting import PATIENCE_S, wait_until
from tests.browser.hands import Console
from tests.browser.test_console_accessibility import RUN, axe
from tests.browser.test_console_keyboard import HERE, MARK

__all__ = ["axe"]  # a fixture
pytestmark = pytest.mark.browser

OWN = {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "ddim", "timestep_spacing": "trailing"}
SMALL = {"num_inference_steps": 2, "seed": 3, "width": 64, "height": 64}
MORE: dict[str, Any] = {
    "best_of": 2,
    "labels": ["a fox", "a dog"],
    "grid": True,
    "prompt_syntax": "weighted",
    "clip_skip": 1,
    "timestep_spacing": "trailing",
    "guidance_interval": [0.0, 0.8],
    "loras": [{"name": "style", "weight": 0.5}, {"name": "lines", "weight": 1.0}],
    "embeddings": ["fluffy"],
}
FILLED = {
    "best_of": "2",
    "labels": "a fox, a dog",
    "grid": "yes",
    "prompt_syntax": "weighted",
    "clip_skip": "1",
    "timestep_spacing": "trailing",
    "guidance_from": "0",
    "guidance_to": "0.8",
}
# The form's fields by name, with the bounds that they have.
PLACES = """() => {
  const all = [...document.querySelector('#form').elements];
  return Object.fromEntries(all.map(one => [one.name, [one.min, one.max]]));
}"""


@pytest.fixture(scope="module")
def rich(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with few-step weights, two LoRAs that fit and one that does not, and an embedding."""
    models, folder = models_with_few_steps(tmp_path_factory.mktemp("tiny"), OWN), tmp_path_factory.mktemp("loras")
    parts = load_diffusion(models.tiny, torch.device("cpu"), torch.float32)
    write_lora(folder / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=4.0))
    write_lora(folder / "lines.safetensors", lora_tensors(parts.unet, ends=CONVOLUTIONS, rank=8, form="peft"))
    torch.save({}, folder / "old.ckpt")
    save_file({"<fluffy>": torch.ones(2, parts.text_encoder.config.hidden_size)}, folder / "fluffy.safetensors")
    data = tmp_path_factory.mktemp("node")
    shutil.copyfile(sqlite_template, data / "foxhound.db")
    with serve(make_settings(data, f"sqlite:///{data / 'foxhound.db'}", loras_dir=folder), models) as served:
        wait_until(lambda: served.http.get("/readyz").status_code == 200)
        yield served


@pytest.fixture
def console(tab: Tab, rich: Node) -> Iterator[Console]:
    console = Console(tab, rich)
    yield console
    console.check()


def named(page: Page, name: str) -> Locator:
    return page.locator(f"[name={name}]")


def has_value(field: Locator, value: str) -> None:
    expect(field).to_have_value(value, timeout=PATIENCE_S * 1_000)


def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        field = named(page, name)
        if field.evaluate("one => one.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def offered(console: Console) -> Page:
    """Open the Studio and wait until it offers what the node has, and shows what was made."""
    page = console.open("/ui")
    shows_results(page)
    return page


def shows_results(page: Page) -> None:
    """Wait until the Studio shows what was made before; it offers what the node has by then."""
    page.locator("#results > article, #results > .state.empty").first.wait_for()


def made(page: Page, node: Node) -> dict[str, Any]:
    """Press the button, wait for the result and return the newest generation."""
    before = page.locator("#results article").count()
    page.locator("#go").click()
    page.locator("#results article").nth(before).wait_for()
    newest: dict[str, Any] = node.http.get("/generations").json()["items"][0]
    return newest


def test_every_field_of_the_request_has_a_place_with_its_bounds(console: Console) -> None:
    page = offered(console)
    places = page.evaluate(PLACES)
    others = {"init_image": "init-file", "mask": "mask-file"}
    assert all(page.locator(f"#{place}").count() == 1 for place in others.values())
    interval = places.pop("guidance_from"), places.pop("guidance_to")
    assert interval == (["0", "1"], ["0", "1"])
    drawn = {"loras", "embeddings", "guidance_interval", *others}  # rows, words, two numbers and files
    assert set(GenerateRequest.model_fields) - drawn - {"preview", "response_format"} == places.keys() - {""}
    properties = GenerateRequest.model_json_schema()["properties"]
    for name in ("clip_skip", "mask_blur", "guidance_scale", "num_inference_steps"):
        [bounds] = [one for one in properties[name].get("anyOf", [properties[name]]) if "maximum" in one]
        assert places[name] == [f"{bounds['minimum']:g}", f"{bounds['maximum']:g}"], name


def test_every_setting_is_sent_shown_kept_and_taken_over_again(console: Console, rich: Node) -> None:
    page = offered(console)
    assert not named(page, "clip_skip").is_visible(), "they lie in one place that is closed"
    fill(page, prompt="a fox", **{name: str(value) for name, value in SMALL.items()})
    plain = made(page, rich)["parameters"]
    assert {"loras": [], "best_of": None, "clip_skip": None, "grid": False}.items() <= plain.items()

    page.get_by_text("More settings").press("Enter")
    fill(page, **FILLED, seed="3")
    page.get_by_text("More settings: 7 set").wait_for()
    page.get_by_role("button", name="Add a LoRA").press("Enter")
    page.get_by_label("LoRA 1", exact=True).select_option("style")
    page.get_by_label("Weight of LoRA 1").fill("0.5")
    page.get_by_role("button", name="Add a LoRA").press("Enter")
    has_value(page.get_by_label("LoRA 2", exact=True), "lines")
    expect(page.get_by_role("button", name="Add a LoRA")).to_be_disabled(timeout=PATIENCE_S * 1_000)
    assert page.get_by_label("LoRA 1", exact=True).locator("option").all_inner_texts() == ["style"]
    named(page, "prompt").press("End")
    page.get_by_role("button", name="Insert its word").press("Enter")
    has_value(named(page, "prompt"), "a fox <fluffy>")
    generation = made(page, rich)
    assert {**SMALL, **MORE, "prompt": "a fox <fluffy>"}.items() <= generation["parameters"].items()
    newest = page.locator("#results article").first
    newest.get_by_text("CLIP score").wait_for()
    assert "style × 0.5, lines × 1" in newest.locator("p").first.inner_text()
    sheet = newest.get_by_role("link", name="Sheet of all images").get_attribute("href")
    assert rich.http.get(str(sheet)).headers["content-type"] == "image/png"

    page.reload()
    has_value(page.get_by_label("LoRA 2", exact=True), "lines")
    for name, value in FILLED.items():
        has_value(named(page, name), value)

    image = generation["images"][0]["id"]
    page = console.open(f"/ui/images/{image}")
    page.get_by_text("More settings").click()
    has_value(page.get_by_label("Weight of LoRA 1"), "0.5")
    assert named(page, "clip_skip").get_attribute("placeholder") == "as it was (1)"
    assert named(page, "timestep_spacing").locator("option").first.inner_text() == "as it was (trailing)"
    fill(page, clip_skip="0")
    page.get_by_text("More settings").click()
    page.get_by_role("button", name="Make it again").click()
    page.locator("label", has=named(page, "clip_skip")).locator(".fault").wait_for()
    fill(page, clip_skip="9")
    page.get_by_role("button", name="Make it again").click()
    page.locator("label", has=named(page, "clip_skip")).get_by_text("text encoder has 2 layers").wait_for()
    page.get_by_role("alert").get_by_text("CLIP skip: ").wait_for()
    fill(page, clip_skip="", guidance_to="0.6", scheduler="euler", num_inference_steps="3")
    page.get_by_role("button", name="Remove LoRA 2").click()
    page.get_by_role("button", name="Make it again").click()
    page.locator(".grid.made img").first.wait_for()
    again = rich.http.get("/generations").json()["items"][0]["parameters"]
    changed = {"loras": [{"name": "style", "weight": 0.5}], "guidance_interval": [0.0, 0.6], "scheduler": "euler"}
    assert {**SMALL, **MORE, **changed, "num_inference_steps": 3}.items() <= again.items()

    page.evaluate("sessionStorage.clear()")
    page.get_by_role("link", name="Use these settings").click()
    for name, value in {**FILLED, "prompt": "a fox <fluffy>", "seed": "3", "num_inference_steps": "2"}.items():
        has_value(named(page, name), value)
    has_value(page.get_by_label("Weight of LoRA 1"), "0.5")
    shows_results(page)
    repeated = made(page, rich)
    assert repeated["images"][0]["sha256"] == generation["images"][0]["sha256"]
    fill(page, prompt="a fox")
    assert made(page, rich)["parameters"]["embeddings"] == [], "its word stands in no prompt any more"


def test_a_speed_brings_its_own_settings_and_takes_them_away_again(console: Console, rich: Node) -> None:
    page = offered(console)
    fill(page, prompt="a fox", negative_prompt="a dog", width="64", height="64", seed="3")
    fill(page, num_inference_steps="20", guidance_scale="5", scheduler="euler")
    page.get_by_text("More settings").click()
    fill(page, timestep_spacing="linspace", guidance_to="0.5")
    named(page, "speed").select_option("fast")
    has_value(named(page, "num_inference_steps"), "4")
    page.get_by_text("at most 8 steps").wait_for()
    for name in ("guidance_scale", "negative_prompt", "guidance_from", "guidance_to"):
        named(page, name).wait_for(state="hidden")
    assert named(page, "scheduler").locator("option").first.inner_text() == "default (ddim)"
    generation = made(page, rich)
    assert {**OWN, "speed": "fast", "negative_prompt": "", "guidance_interval": None}.items() <= generation[
        "parameters"
    ].items()
    assert generation["warnings"] == []

    fill(page, num_inference_steps="9")
    page.locator("#go").click()
    page.locator("#problem").get_by_text("Steps: ").wait_for()
    named(page, "speed").select_option("exact")
    for name, value in {"num_inference_steps": "20", "guidance_scale": "5", "scheduler": "euler"}.items():
        has_value(named(page, name), value)
    named(page, "timestep_spacing").locator("option:checked", has_text="linspace").wait_for(state="attached")
    named(page, "speed").select_option("fast")
    has_value(named(page, "num_inference_steps"), "9")
    page.reload()
    shows_results(page)
    page.get_by_text("at most 8 steps").wait_for()
    has_value(named(page, "num_inference_steps"), "9")

    page.get_by_role("button", name="Use these settings").first.click()
    has_value(named(page, "num_inference_steps"), "4")
    page.get_by_role("button", name="Use as init image").first.click()
    page.locator("#init-shown:not([hidden])").wait_for()
    named(page, "strength").press("Home")
    has_value(named(page, "strength"), "0.25")
    assert made(page, rich)["parameters"]["strength"] == 0.25, "one of four steps at least"


def test_schedulers_and_timesteps_hide_what_they_do_not_take(console: Console, rich: Node) -> None:
    page = offered(console)
    page.get_by_text("More settings").click()
    fill(page, prompt="a fox", width="64", height="64", timestep_spacing="leading")
    named(page, "scheduler").select_option("lcm")
    named(page, "timestep_spacing").wait_for(state="hidden")
    named(page, "scheduler").select_option("dpmpp_2m_karras")
    named(page, "timesteps").wait_for(state="hidden")
    fill(page, num_inference_steps="2")
    assert made(page, rich)["parameters"]["timestep_spacing"] is None
    named(page, "scheduler").select_option("euler")
    named(page, "timesteps").fill("999, 600, 200")
    for name in ("timestep_spacing", "num_inference_steps"):
        named(page, name).wait_for(state="hidden")
    parameters = made(page, rich)["parameters"]
    assert (parameters["timesteps"], parameters["num_inference_steps"]) == ([999, 600, 200], 3)
    named(page, "timesteps").fill("200, 600")
    page.locator("#go").click()
    page.locator("label", has=named(page, "timesteps")).get_by_text("each below the one before").wait_for()


def test_a_fault_is_said_at_its_field_by_the_page_and_by_the_node(console: Console, rich: Node) -> None:
    page = offered(console)
    fill(page, prompt="a fox", **{name: str(value) for name, value in SMALL.items()})
    page.get_by_text("More settings").click()
    fill(page, clip_skip="5", num_images_per_prompt="3", best_of="2")
    page.get_by_text("More settings").click()
    page.locator("#go").click()
    page.locator("label", has=named(page, "best_of")).get_by_text("at least the number of images").wait_for()
    console.until("document.activeElement.name === 'best_of'")
    fill(page, best_of="")
    page.locator(".fault").wait_for(state="detached")
    page.get_by_text("More settings").click()
    page.locator("#go").click()
    label = page.locator("label", has=named(page, "clip_skip"))
    label.get_by_text("text encoder has 2 layers").wait_for()
    assert named(page, "clip_skip").get_attribute("aria-invalid") == "true"
    page.locator("#problem").get_by_text("CLIP skip: ").wait_for()
    fill(page, clip_skip="")
    page.locator("#problem").wait_for(state="hidden")

    page.get_by_role("button", name="Add a LoRA").click()
    page.route("**/generate/events", lambda route: route.continue_(post_data=_renamed(route.request.post_data_json)))
    page.locator("#go").click()
    page.locator(".lora-row").get_by_text("The node has no LoRA of this name").wait_for()
    page.locator("#problem").get_by_text("LoRA 1: ").wait_for()
    console.until("document.activeElement.getAttribute('aria-label') === 'LoRA 1'")


def _renamed(body: Any) -> Any:
    return {**body, "loras": [{"name": "gone"}]}


def has_no_serious_fault(page: Page) -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(RUN) == [], scheme


def test_all_of_it_is_reached_by_keyboard_and_has_no_serious_fault(console: Console, rich: Node, axe: str) -> None:
    rich.http.post("/generate", json={"prompt": "a fox", **SMALL})
    page = offered(console)
    page.get_by_text("More settings").click()
    page.get_by_role("button", name="Add a LoRA").click()
    page.get_by_role("button", name="Use as init image").first.click()
    page.locator("#init-shown:not([hidden])").wait_for()
    named(page, "clip_skip").fill("12")
    named(page, "prompt").fill("a fox")
    page.locator("#go").click()
    page.locator(".fault").wait_for()
    page.evaluate(f"() => {{ const module = undefined, define = undefined; {axe}\n }}")
    has_no_serious_fault(page)
    page.wait_for_load_state("networkidle")
    wanted, reached = page.evaluate(MARK), {}
    for _ in range(len(wanted) + 60):
        page.keyboard.press("Tab")
        number, is_seen = page.evaluate(HERE)
        if number is not None:
            reached[int(number)] = is_seen
    assert [wanted[number] for number in range(len(wanted)) if not reached.get(number)] == []
    page.get_by_role("button", name="Paint a mask").press("Enter")
    page.get_by_role("dialog").wait_for()
    has_no_serious_fault(page)
