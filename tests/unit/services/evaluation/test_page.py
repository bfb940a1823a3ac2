"""The page of a train report: self-contained, escaped, bounded, honest about what it shows."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from app.schemas.train_reports import EpochPoint, TrainReportRead
from app.services.evaluation.report.page import CONTENT_SECURITY_POLICY, MAX_CLASSES, MAX_MISTAKES, render_html
from testing.train_reports import report, thumbnail

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='x",
    "{{ 7*7 }}{% raw %}",
    "</style></svg></title>",
    "שלום עולם",
    "\u202eevil\u202c",
    "狐狸" * 100,
    "x" * 200,
    "&amp;",
    "\t \x07",
]
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span", "bdi", "a", "img"),
    *("table", "thead", "tbody", "tr", "th", "td", "ul", "li", "dl", "dt", "dd", "figure", "figcaption"),
    *("svg", "rect", "circle", "polyline", "text"),
}
FIVE = ["fox", "dog", "bird", "flower", "car"]


class Page(HTMLParser):
    """What a page contains: the tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_stay_text() -> None:
    example = report(HOSTILE, prompt="<b>{}</b>")
    page = Page(render_html(example))
    assert {tag for tag, _ in page.tags} <= TAGS
    assert {
        name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"
    } == set()
    for name in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% raw %}", "&amp;"):
        assert name in page.text
    assert "\u202e" not in page.text
    assert "\x07" not in page.text
    assert "(no visible name)" in page.text


def test_the_page_loads_nothing_and_its_images_are_inside_or_links() -> None:
    page = Page(render_html(report(FIVE)))
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all(re.fullmatch(r"/images/[0-9a-f]+/content", link) for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "script" not in CONTENT_SECURITY_POLICY


def test_every_chart_is_well_formed_svg() -> None:
    html = render_html(report(HOSTILE))
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(charts) == 5
    for chart in charts:
        ElementTree.fromstring(chart)  # noqa: S314 - our own page


def test_a_generated_test_is_never_the_quiet_headline() -> None:
    text = Page(render_html(report(FIVE, num_real=0))).text
    assert text.index("Measured on generated images only") < text.index("How good it is")


def test_real_images_are_the_headline_and_generated_ones_a_column() -> None:
    example = report(FIVE)
    text = Page(render_html(example)).text
    assert example.metrics.test.headline.sentence.startswith("On uploaded images")
    assert example.metrics.test.headline.sentence in text
    assert "Generated" in text


def test_baselines_verdicts_ablation_lineage_and_seeds_are_shown() -> None:
    text = Page(render_html(report(FIVE))).text
    for shown in ("CLIP zero-shot", "Nearest centroid", "Majority class", "model is better", "soft labels"):
        assert shown in text
    assert "+4.0 points (-1.0 to +9.0)" in text
    assert "a watercolor painting of a fox" in text
    assert "0, 1, 2, 3, 4, 5, 6, 7, …" in text


def test_a_thousand_classes_with_long_names_stay_below_a_megabyte_and_the_cut_is_counted() -> None:
    example = report([f"{index} " + "n" * 195 for index in range(1_000)], num_real=3_000, num_epochs=1_000)
    html = render_html(example)
    assert len(html.encode()) < 1_000_000
    text = Page(html).text
    assert f"{MAX_CLASSES} of 1000 classes, the lowest recall first" in text
    assert f"{MAX_CLASSES} of 1000 prompts" in text
    assert f"The {MAX_MISTAKES} most confident ones of 100 in the JSON report" in text


def test_large_thumbnails_are_left_out_once_the_page_has_enough() -> None:
    example = report([f"class {index}" for index in range(40)], num_real=400)
    large = thumbnail(0).rstrip("=")
    large += "A" * (16_000 - len(large))
    for mistake in example.mistakes:
        mistake.thumbnail_b64 = large
    assert len(example.mistakes) == 100
    html = render_html(example)
    assert html.count("data:image/jpeg") == MAX_MISTAKES
    assert len(html.encode()) < 3_000_000


@pytest.mark.parametrize("encoded", ["AAAA", "PHN2Zz4=", "A", ""])
def test_a_thumbnail_that_is_no_picture_becomes_a_link(encoded: str) -> None:
    example = report(FIVE)
    for mistake in example.mistakes:
        mistake.thumbnail_b64 = encoded
    assert "<img" not in render_html(example)


def test_a_report_without_test_images_epochs_or_extras() -> None:
    example = report(FIVE, num_real=0, num_synthetic=0, num_epochs=0)
    bare = example.model_copy(update={"ablation": [], "label_errors": None, "settings": [], "warnings": []})
    text = Page(render_html(bare)).text
    assert "There are no test images" in text
    assert "Curves" not in text


def test_a_loss_that_is_not_finite_is_left_out_of_the_curve() -> None:
    example = report(FIVE, num_epochs=3)
    point = EpochPoint(
        epoch=4, train_loss=float("inf"), train_accuracy=None, held_out_loss=None, held_out_accuracy=None
    )
    diverged = example.model_copy(update={"epochs": [*example.epochs, point]})
    assert TrainReportRead.model_validate_json(diverged.model_dump_json()) == diverged
    lines = re.findall(r'class="s-first" fill="none" stroke-width="2" points="([^"]*)"', render_html(diverged))
    assert [len(line.split()) for line in lines] == [3, 3]


def test_the_report_is_json_and_back() -> None:
    example = report(HOSTILE)
    assert TrainReportRead.model_validate_json(example.model_dump_json()) == example
