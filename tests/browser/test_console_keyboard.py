"""Every page of the console by keyboard: the Tab key reaches each control, and shows where it is."""

import pytest

from tests.browser.hands import Console, Hands, console, hands

__all__ = ["console", "hands"]  # fixtures
pytestmark = pytest.mark.browser

# Numbers the controls that a person can see, and returns their HTML: those that the Tab key must reach. A group of
# radio buttons is one stop, and so is a list whose items have no place of their own in the order.
MARK = """() => {
  const all = document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]');
  const isShown = one => one.checkVisibility({visibilityProperty: true}) && one.getClientRects().length;
  const shown = [...all].filter(one => one.tabIndex >= 0 && !one.matches(':disabled') && isShown(one));
  shown.forEach((one, index) => { one.dataset.walk = index; });
  return shown.map(one => one.outerHTML.slice(0, 120));
}"""
# Where the focus is, and whether it can be seen: on the control, or on what stands for one that has no size.
HERE = """() => {
  const one = document.activeElement;
  const outlined = [one, one.closest('label')].some(each => each && getComputedStyle(each).outlineStyle !== 'none');
  return [one.dataset.walk ?? null, outlined];
}"""


def test_the_tab_key_reaches_every_control_of_every_page_and_shows_it(hands: Hands, console: Console) -> None:
    made = hands.made("fox-dog", ["fox", "dog"], train_per_class=2, test_per_class=2)
    models = [hands.trained(made["id"], name=name) for name in ("first", "second")]
    image = hands.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]["id"]
    paths = ("/ui", "/ui/gallery", f"/ui/images/{image}", "/ui/datasets", f"/ui/datasets/{made['id']}")
    more = (f"/ui/train-jobs/{models[0]}", f"/ui/models/{models[0]}", f"/ui/compare?ids={','.join(models)}")
    for path in (*paths, "/ui/training", *more, "/ui/node", "/ui/sign-in"):
        page = console.open(path)
        page.wait_for_load_state("networkidle")
        # The page of the node reads its tables again every few seconds, and then has other elements.
        page.evaluate("() => { for (let id = setInterval(() => {}, 1e6); id > 0; id -= 1) clearInterval(id) }")
        page.wait_for_load_state("networkidle")
        wanted = page.evaluate(MARK)
        reached: dict[int, bool] = {}
        for _ in range(len(wanted) + 60):
            page.keyboard.press("Tab")
            number, is_seen = page.evaluate(HERE)
            if number is not None:
                reached[int(number)] = is_seen
            if len(reached) == len(wanted):
                break
        assert [wanted[number] for number in range(len(wanted)) if number not in reached] == [], path
        assert [wanted[number] for number, is_seen in reached.items() if not is_seen] == [], path
