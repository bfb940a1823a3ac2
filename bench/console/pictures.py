"""Takes the pictures of the console: those of docs/images/console, or every page in each width and scheme to look at.

`python -m bench.console.pictures OUT [--survey]`: serves a node with the demo pack and its worker in its own folder,
makes images, a dataset and two models (minutes on two cores), and writes PNG files to OUT. `--survey`: all pages, 1280
and 360 pixels wide, light and dark.
"""

import argparse
import base64
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page

from testing.chromium import chromium
from testing.waiting import wait_until

PATIENCE_S = 600.0
PROMPTS = ("a watercolor painting of a red fox", "a watercolor painting of a golden retriever", "a red fox in the snow")
DATASET: dict[str, Any] = {
    "name": "fox-dog",
    "seed": 7,
    "classes": [
        {"name": "fox", "prompts": ["a watercolor painting of a red fox", "a pencil sketch of a red fox"]},
        {"name": "dog", "prompts": ["a watercolor painting of a golden retriever", "a pencil sketch of a dog"]},
    ],
    "train_per_class": 12,
    "test_per_class": 8,
    "generation": {"num_inference_steps": 12, "speed": "balanced"},
}
_DROP = """([selector, text]) => {
  const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], 'picture.png', {type: 'image/png'}));
  document.querySelector(selector).dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true}));
}"""


@contextmanager
def serving() -> Iterator[httpx.Client]:
    """Serve a node with the demo pack and its worker; yield a client of it."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {**os.environ, "FOXHOUND_DATA_DIR": f"{folder}/data", "FOXHOUND_PORT": str(port)}
        command = [sys.executable, "-m", "app.cli.main"]
        subprocess.run([*command, "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
        node = subprocess.Popen([*command, "serve"], env=env, stderr=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
                wait_until(lambda: _is_ready(http), patience_s=PATIENCE_S)
                yield http
        finally:
            node.terminate()
            node.wait()


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def finished(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """Wait for a job and return it."""
    while True:
        job: dict[str, Any] = http.get(f"/jobs/{job_id}", headers={"Prefer": "wait=30"}).json()
        if job["status"] in ("succeeded", "failed", "cancelled"):
            assert job["status"] == "succeeded", job["error"]
            return job


def filled(http: httpx.Client) -> dict[str, str]:
    """Make what the pages show; return their paths by name."""
    for number, prompt in enumerate(PROMPTS):
        body = {"prompt": prompt, "num_inference_steps": 20, "seed": 40 + number, "num_images_per_prompt": 2}
        image_id = http.post("/generate", json=body).json()["images"][0]["id"]
    dataset = http.post("/datasets", json=DATASET).json()
    finished(http, dataset["job_id"])
    models = []
    for name, epochs in (("fox-or-dog", 8), ("hasty", 1)):
        answer = http.post("/train-jobs", json={"dataset_id": dataset["id"], "name": name, "epochs": epochs})
        models.append(finished(http, answer.json()["id"])["result"]["model_id"])
    return {
        "studio": "/ui",
        "gallery": "/ui/gallery",
        "image": f"/ui/images/{image_id}",
        "datasets": "/ui/datasets",
        "review": f"/ui/datasets/{dataset['id']}",
        "training": "/ui/training",
        "train-job": f"/ui/train-jobs/{models[0]}",
        "model": f"/ui/models/{models[0]}",
        "compare": f"/ui/compare?ids={','.join(models)}",
        "node": "/ui/node",
        "sign-in": "/ui/sign-in",
    }


def opened(browser: Browser, width: int, height: int, scheme: Literal["light", "dark"] = "light") -> Page:
    """Return a page of a size and a colour scheme."""
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    page.set_default_timeout(PATIENCE_S * 1_000)
    return page


def save(data: bytes, path: Path) -> None:
    """Write a screenshot with at most 256 colours: a third of the size, and no difference to the eye."""
    Image.open(io.BytesIO(data)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def survey(browser: Browser, url: str, paths: dict[str, str], out: Path) -> None:
    """Write every page, whole, in each width and scheme."""
    for scheme in ("light", "dark"):
        for width in (1280, 360):
            page = opened(browser, width, 800, scheme)
            for name, path in paths.items():
                page.goto(f"{url}{path}")
                page.wait_for_load_state("networkidle")
                save(page.screenshot(full_page=True), out / f"{name}-{width}-{scheme}.png")
            for name in ("studio", "image"):
                page.goto(f"{url}{paths[name]}")
                page.get_by_text("More settings").click()
                page.wait_for_load_state("networkidle")
                save(page.screenshot(full_page=True), out / f"{name}-more-{width}-{scheme}.png")
            start_with_mask(page, url, paths)
            save(page.screenshot(full_page=True), out / f"studio-mask-{width}-{scheme}.png")
            page.context.close()


def start_with_mask(page: Page, url: str, paths: dict[str, str]) -> None:
    """Open the Studio with an image to start from, of which the right half is made anew."""
    page.goto(f"{url}/ui?init={paths['image'].rpartition('/')[2]}")
    page.locator("#init-shown:not([hidden])").wait_for()
    page.locator("#results > article").first.wait_for()
    page.locator("#mask-paint").click()
    page.get_by_label("Left").fill("50")
    page.get_by_role("button", name="Add this rectangle").click()
    page.get_by_role("button", name="Use this mask").click()
    page.locator("#mask-shown:not([hidden])").wait_for()
    page.wait_for_load_state("networkidle")


def image_page(browser: Browser, url: str, paths: dict[str, str], out: Path) -> None:
    """Write the page of an image."""
    page = opened(browser, 1200, 800)
    page.goto(f"{url}{paths['image']}")
    page.get_by_text("More settings").wait_for()
    page.wait_for_load_state("networkidle")
    save(page.screenshot(), out / "image.png")
    page.context.close()


def studio_at_work(browser: Browser, url: str, paths: dict[str, str], out: Path) -> None:
    """Write the Studio while it draws from an image with a mask, with previews."""
    page = opened(browser, 1200, 800)
    start_with_mask(page, url, paths)
    page.locator("[name=prompt]").fill(PROMPTS[2])
    page.locator("[name=num_inference_steps]").fill("40")  # 30 of them at the strength that the page proposes
    page.locator("#go").click()
    page.locator("#run").get_by_text(re.compile(r"Step (2[3-8]) of 30")).wait_for()
    page.locator("#run img.preview:not([hidden])").wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    save(page.screenshot(), out / "studio.png")
    page.locator("#run").wait_for(state="hidden", timeout=PATIENCE_S * 1_000)
    page.context.close()


def model_asked(browser: Browser, url: str, http: httpx.Client, paths: dict[str, str], out: Path) -> None:
    """Write the model's page with a file that was dropped: its classes, and the nearest training images."""
    page = opened(browser, 1200, 860)
    page.goto(f"{url}{paths['model']}")
    page.locator("#drop .drop").wait_for()
    picture = http.get(f"/images/{paths['image'].rpartition('/')[2]}").content
    page.evaluate(_DROP, ["#drop .drop", base64.b64encode(picture).decode()])
    page.locator("#answer .nearest a").nth(5).wait_for()
    page.wait_for_load_state("networkidle")
    save(page.screenshot(), out / "model.png")
    page.context.close()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--survey", action="store_true", help="every page in each width and scheme")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with serving() as http, chromium() as browser:
        url, paths = str(http.base_url).rstrip("/"), filled(http)
        if asked.survey:
            survey(browser, url, paths, asked.out)
        studio_at_work(browser, url, paths, asked.out)
        image_page(browser, url, paths, asked.out)
        model_asked(browser, url, http, paths, asked.out)


if __name__ == "__main__":
    main()
