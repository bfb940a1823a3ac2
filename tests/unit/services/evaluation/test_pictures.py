"""The charts: which figures they show, and as PNG files."""

import io

import numpy as np
import pytest
from PIL import Image

from app.services.evaluation.report.charts import draw_pictures
from app.services.evaluation.report.page import render_png
from app.services.evaluation.report.picture import Box, Label, Picture, fitted
from app.services.evaluation.report.png import SCALE, render_picture
from testing.train_reports import report

FIVE = ["fox", "dog", "bird", "flower", "car"]


def words(picture: Picture) -> list[str]:
    return [shape.text for shape in picture.shapes if isinstance(shape, Label)]


@pytest.mark.parametrize("name", ["accuracy", "curves", "classes", "confusion", "reliability"])
def test_each_chart_is_a_png_of_twice_its_size_with_something_drawn(name: str) -> None:
    example = report(FIVE)
    content = render_png(example, name)
    assert content is not None
    picture, drawn = draw_pictures(example)[name], Image.open(io.BytesIO(content))
    assert (drawn.format, drawn.size) == ("PNG", (picture.width * SCALE, picture.height * SCALE))
    assert len(drawn.convert("RGB").getcolors(1 << 20) or []) > 20


def test_a_chart_that_the_report_does_not_have_is_none() -> None:
    assert render_png(report(FIVE), "../../etc") is None
    assert render_png(report(FIVE, num_real=0, num_synthetic=0), "confusion") is None
    assert set(draw_pictures(report(FIVE, num_real=0, num_synthetic=0, num_epochs=0))) == set()


def test_hostile_names_and_a_thousand_classes_are_drawn() -> None:
    names = ["\u202e\x00", "", "a" * 200, "שלום", "\u0301" * 50, *(f"class {index}" for index in range(995))]
    example = report(names, num_real=2_000, num_epochs=1, thumbnails=False)
    for name, picture in draw_pictures(example).items():
        content = render_picture(picture)
        assert len(content) < 400_000, name
        assert picture.width < 1_000


def test_the_confusion_matrix_shows_every_image_once() -> None:
    for num_classes in (5, 40, 150):
        example = report([f"class {index}" for index in range(num_classes)], num_real=700)
        counts = [word for word in words(draw_pictures(example)["confusion"]) if word.isdigit()]
        assert sum(map(int, counts)) == 700
        rows = min(num_classes, 30)
        others = f"{num_classes - 29} others"
        assert (others in words(draw_pictures(example)["confusion"])) == (num_classes > 30)
        assert draw_pictures(example)["confusion"].height < 30 * rows + 200


def test_the_bar_of_a_class_is_as_long_as_its_recall() -> None:
    example = report(FIVE)
    real = example.metrics.test.real
    assert real is not None
    picture = draw_pictures(example)["classes"]
    bars = [shape.width for shape in picture.shapes if isinstance(shape, Box)]
    recalls = [one.recall.value for one in real.per_class if one.recall]
    assert np.allclose(np.array(bars) / bars[0], np.array(recalls) / recalls[0])


def test_many_classes_show_the_lowest_recalls() -> None:
    example = report([f"class {index}" for index in range(100)], num_real=1_000)
    real = example.metrics.test.real
    assert real is not None
    shown = [word for word in words(draw_pictures(example)["classes"]) if word.startswith("class")]
    recalls = {one.name: one.recall.value for one in real.per_class if one.recall}
    assert len(shown) == 30
    assert max(recalls[name] for name in shown) <= min(recall for name, recall in recalls.items() if name not in shown)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("fox", 5, "fox"),
        ("foxhound", 8, "foxhound"),
        ("foxhounds", 8, "foxhoun…"),
        ("狐狸狐狸", 8, "狐狸狐狸"),
        ("狐狸狐狸狐", 8, "狐狸狐…"),
        ("a\n\t b", 5, "a b"),
        ("\u202eevil\u202c\x00", 10, "evil"),
        ("\u200b", 30, "(no visible name)"),
        ("", 30, "(no visible name)"),
        ("e\u0301" * 5, 5, "e\u0301" * 5),
    ],
)
def test_names_are_shortened_by_columns_without_control_characters(text: str, columns: int, expected: str) -> None:
    assert fitted(text, columns) == expected
