"""The pure parts of the demo pack's report: verdicts, recall, failures, the cache's names, sheets. No model runs."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.demo_pack.__main__ import write_quality
from bench.demo_pack.drawings import fullest, load_current
from bench.demo_pack.generation import DEFAULTS, Settings, Wish, cache_path
from bench.demo_pack.metrics import failures, fit_matrix, fits, recall_at_1, share_by, strict_ceiling, top_k
from bench.demo_pack.sheets import GAP, compress, in_rows, page, write
from bench.demo_pack.table import Figure, as_json, render
from bench.demo_pack.words import colours_of, natural_subject, painting
from demo_pack.drawing import draw
from demo_pack.drawing.captions import Said, said

RED_FOX = Said("fox", "red", "watercolor", "snow")
GREY_CAT = Said("cat", "grey", "oil", "plain")


@pytest.mark.parametrize(
    ("value", "target", "is_limit", "verdict"),
    [
        (0.95, 0.95, False, "ok"),
        (0.9499, 0.95, False, "BELOW"),
        (0.03, 0.03, True, "ok"),
        (0.031, 0.03, True, "ABOVE"),
        (0.0, None, False, ""),
        (math.nan, 0.95, False, "BELOW"),
        (math.nan, 0.03, True, "ABOVE"),
    ],
)
def test_a_verdict_compares_with_the_target(value: float, target: float | None, is_limit: bool, verdict: str) -> None:
    assert Figure("x", value, target, is_limit=is_limit).verdict == verdict


def test_the_table_says_loudly_what_misses_its_target() -> None:
    good, bad = Figure("CLIP class", 0.97, 0.95), Figure("one picture", 3.21, 3, "s", is_limit=True)
    free = Figure("colour", 0.5)
    text = render([good, bad, free])
    assert "CLIP class   97.0 %  >= 95.0 %  ok" in text
    assert "3.21 s" in text
    assert text.endswith("1 of 2 targets MISSED: one picture")
    assert render([good, free]).endswith("every target reached")
    assert [row["verdict"] for row in as_json([good, bad, free])] == ["ok", "ABOVE", ""]


def test_top_k_counts_the_wanted_column_among_the_highest() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], np.float32)
    assert top_k(scores, [1, 2]).tolist() == [True, False]
    assert top_k(scores, [2, 1], 2).tolist() == [True, True]
    assert top_k(scores, [-1, -1], 3).tolist() == [False, False]  # a class that the pack does not know
    assert share_by(["fox", "cat", "fox"], np.array([True, False, False])) == {"fox": 0.5, "cat": 0.0}


@pytest.mark.parametrize(
    ("stated", "does_fit"),
    [
        (Said(None, None, None, None), True),
        (Said("fox", None, None, None), True),
        (Said("fox", "red", "watercolor", "snow"), True),
        (Said("fox", "blue", None, None), False),
        (Said("fox", None, None, "plain"), False),
    ],
)
def test_a_caption_fits_what_shows_all_that_it_states(stated: Said, does_fit: bool) -> None:
    assert fits(stated, RED_FOX) is does_fit


def test_recall_tells_the_very_drawing_from_one_that_fits_the_caption() -> None:
    shown = [RED_FOX, replace(RED_FOX, style="oil"), GREY_CAT]
    matrix = fit_matrix([said("a red fox in the snow"), said("a red fox in the snow"), said("a cat")], shown)
    assert matrix.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    similarity = np.array([[0.2, 0.9, 0.1], [0.3, 0.8, 0.1], [0.9, 0.1, 0.3]], np.float32)
    very, fitting = recall_at_1(similarity, matrix)
    assert very.tolist() == [False, True, False]
    assert fitting.tolist() == [True, True, False]
    assert strict_ceiling(matrix) == pytest.approx(2 / 3, abs=1e-4)


def test_a_caption_always_fits_its_own_drawing() -> None:
    assert fit_matrix([said("a blue fox")], [GREY_CAT]).tolist() == [[True]]


def test_the_fullest_caption_states_most() -> None:
    captions = ["a very plain picture of a fox", "a watercolor of a red fox in the snow", "a red fox"]
    assert fullest(captions) == "a watercolor of a red fox in the snow"


def test_drawings_of_another_edition_are_refused(tmp_path: Path) -> None:
    shown = draw(4, 0)
    rows = [[list(shown.captions), shown.class_name, shown.colour, shown.style, shown.background]]
    (tmp_path / "unseen_4.json").write_text(json.dumps(rows))
    pixels = np.asarray(shown.image)[None]
    np.save(tmp_path / "unseen_4.npy", pixels)
    assert load_current(tmp_path, "unseen_4", 4).class_names == [shown.class_name]
    np.save(tmp_path / "unseen_4.npy", 255 - pixels)
    with pytest.raises(ValueError, match="another edition"):
        load_current(tmp_path, "unseen_4", 4)


def test_failures_come_worst_first_and_end_where_all_agree() -> None:
    right = np.array([[True, False, False, True], [True, True, False, False], [True, True, True, True]])
    belief = np.array([[0.9, 0.4, 0.2, 0.3]] * 3, np.float32)
    assert failures(right, belief, 16) == [2, 3, 1]
    assert failures(right, belief, 1) == [2]
    assert failures(np.ones((3, 4), np.bool_), belief, 16) == []


def test_kept_pictures_are_those_of_this_revision_and_these_wishes(tmp_path: Path) -> None:
    wishes = [Wish("a fox", 1), Wish("a dog", 2, "snow")]
    path = cache_path(tmp_path, "abc", wishes, DEFAULTS)
    assert path == cache_path(tmp_path, "abc", list(wishes), Settings())
    others = [
        cache_path(tmp_path, "abd", wishes, DEFAULTS),
        cache_path(tmp_path, "abc", wishes[::-1], DEFAULTS),
        cache_path(tmp_path, "abc", [wishes[0], Wish("a dog", 3, "snow")], DEFAULTS),
        cache_path(tmp_path, "abc", [wishes[0], Wish("a dog", 2)], DEFAULTS),
        cache_path(tmp_path, "abc", wishes, Settings(num_inference_steps=20)),
        cache_path(tmp_path, "abc", wishes, Settings(width=192)),
    ]
    assert len({path, *others}) == 1 + len(others)
    assert path.parent.name == "abc"


def test_prompts_have_the_article_that_the_next_word_wants() -> None:
    assert painting("orange cat", place="in the snow") == "a watercolor painting of an orange cat in the snow"
    assert painting(natural_subject("fox")) == "a watercolor painting of a red fox"
    assert natural_subject("dog") == "golden retriever"
    assert ("golden" in colours_of("dog"), "golden" in colours_of("car")) == (True, False)


def test_a_page_holds_rows_of_pictures_of_any_size() -> None:
    sheet = page([[Image.new("RGB", (64, 64), "red")] * 2, [Image.new("RGB", (192, 128), "blue")]])
    assert sheet.size == (192 + 2 * GAP, 64 + 128 + 3 * GAP)
    assert sheet.getpixel((GAP, GAP)) == (255, 0, 0)
    assert sheet.getpixel((sheet.width - GAP - 1, sheet.height - GAP - 1)) == (0, 0, 255)
    assert in_rows([1, 2, 3], 2) == [[1, 2], [3]]  # type: ignore[list-item, comparison-overlap]


def test_sheets_stay_within_their_limit_by_compression(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    best = compress({"a": noise, "b": noise}, 10**6)
    smaller = compress({"a": noise, "b": noise}, len(best["a.jpg"]) * 2 - 1)
    assert sum(map(len, smaller.values())) < sum(map(len, best.values()))
    with pytest.raises(ValueError, match="do not fit"):
        compress({"a": noise}, 100)
    assert Image.open(io.BytesIO(best["a.jpg"])).size == (64, 64)


def test_a_report_without_failures_removes_their_sheet_and_nothing_else(tmp_path: Path) -> None:
    write({"a.jpg": b"1", "failures.jpg": b"2"}, tmp_path)
    (tmp_path / "mine.jpg").write_bytes(b"3")
    write({"a.jpg": b"4"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.jpg": b"4", "mine.jpg": b"3"}


def test_figures_go_into_the_manifest_that_was_measured_and_no_other(tmp_path: Path) -> None:
    manifest = {"name": "demo", "revision": "abc", "quality": {"old": 1}, "files": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    write_quality(tmp_path, "abc", {"new": 2})
    assert json.loads((tmp_path / "manifest.json").read_text()) == {**manifest, "quality": {"new": 2}}
    with pytest.raises(ValueError, match="by now"):
        write_quality(tmp_path, "abd", {"new": 3})
