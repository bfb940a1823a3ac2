"""The report's page is well-formed, needs no script, and shows whatever a client called its classes as text."""

from html.parser import HTMLParser

import pytest

from app.schemas.generations import ModelRef
from app.schemas.reports import (
    ClassReport,
    ConfusionCell,
    DatasetReportRead,
    LabelShare,
    ReportImage,
    ReportPair,
    ReportPairs,
)
from app.services.reports.html import CONTENT_SECURITY_POLICY, MAX_SQUARE, report_page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table></style><svg onload=alert(1)>",
    "javascript:alert(1) & &lt;b&gt; \u202e",
]
VOID = {"meta", "img"}
TABLE, TEXT = {"table", "thead", "tbody", "tr", "th", "td"}, {"title", "style", "h1", "h2", "h3", "h4", "p", "small"}
ALLOWED = {"html", "head", "meta", "body", "ul", "li", "a", "img"} | TABLE | TEXT


class Page(HTMLParser):
    """What a browser would find in a page: tags, in order and closed, and the text of each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def values(self, tag: str, name: str) -> list[str | None]:
        return [attributes.get(name) for found, attributes in self.attributes if found == tag]


def report(names: list[str]) -> DatasetReportRead:
    image = ReportImage(image_id="i-1", url="/images/i-1", split="test", source="real", predicted_class=names[-1],
                        probability=0.25)  # fmt: skip
    classes = [
        ClassReport(name=name, text=name, num_train=3, num_validation=0, num_test=1, num_synthetic=2, num_real=2,
                    num_judged=4, agreement=0.75, mean_probability=0.5, diversity=None, best=[image], worst=[image],
                    top_labels=[LabelShare(label=name, count=1, share=0.25)])
        for name in names
    ]  # fmt: skip
    pair = ReportPair(image_ids=["i-1", "i-2"], class_names=[names[0], names[-1]], splits=["train", "test"], cosine=1.0)
    found = ReportPairs(num_pairs=7, num_images=2, pairs=[pair])
    return DatasetReportRead(
        dataset_id="d", version="0" * 64, model=ModelRef(id=None, name="demo", revision="<1>"), num_images=4,
        num_synthetic=2, num_real=2, num_judged=4, num_left_out=1, is_sample=True, agreement=0.75, diversity=0.5,
        classes=classes, confusion=[ConfusionCell(class_name=names[0], predicted_class=names[-1], count=5)],
        num_confusion_cells=1, near_duplicate_cosine=0.99, near_duplicate_cosine_from="pack",
        near_duplicates=found, leakage=found,
    )  # fmt: skip


@pytest.mark.parametrize("num_classes", [2, MAX_SQUARE + 1])
def test_hostile_names_are_text_and_nothing_but_text(num_classes: int) -> None:
    names = [*HOSTILE, *(f"class {k}" for k in range(num_classes - 4))]
    page = Page(report_page(report(names), HOSTILE[0], "../../images/"))
    assert page.texts["h1"] == [HOSTILE[0]]
    assert page.texts["h3"] == names
    assert set(names) <= set(page.texts["td"])
    assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
    assert set(page.values("a", "href")) == {"../../images/i-1", "../../images/i-2"} == set(page.values("img", "src"))
    assert page.values("meta", "name")[1] == "viewport"


def test_counts_agreement_and_confusion_are_there() -> None:
    page = Page(report_page(report(["fox", "dog"]), "d", "/images/"))
    told = " ".join(text for texts in page.texts.values() for text in texts)
    for part in (
        "4 images: 2 generated, 2 uploaded",
        "75.0%",
        "7 pairs, the closest 1",
        "(a sample)",
        "1 could not be",
    ):
        assert part in told
    square = page.texts["td"][20:]  # behind two rows of ten cells
    assert square[:6] == ["fox", "0", "5", "dog", "0", "0"]


def test_the_policy_lets_in_the_pages_own_style_and_images_alone() -> None:
    directives = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "'self'"
    assert directives["style-src"].startswith("'sha256-")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
