"""`GET /images` by words of the prompt, by model, and page by page."""

from contextlib import closing
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.db.models import Image
from app.db.session import Database
from app.services.pagination import search_page
from testing.node import Node

PROMPTS = ("a red Fox at night", "a red dog", "100% a_fox", "ein Füchslein")


@pytest.fixture
def http(node: Node) -> httpx.Client:
    for prompt in PROMPTS:
        assert node.http.post("/generate", json={"prompt": prompt, "num_inference_steps": 1}).status_code == 200
    return node.http


def prompts(http: httpx.Client, page: dict[str, Any]) -> list[str]:
    return [http.get(f"{image['url']}/metadata").json()["lineage"]["prompt"] for image in page["items"]]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fox", ["100% a_fox", "a red Fox at night"]),
        ("RED", ["a red dog", "a red Fox at night"]),
        ("night red", ["a red Fox at night"]),
        ("red zebra", []),
        ("%", ["100% a_fox"]),
        ("_", ["100% a_fox"]),
        ("Füchs", ["ein Füchslein"]),
        ("'; DROP TABLE images; --", []),
        ("", [*reversed(PROMPTS)]),
    ],
)
def test_images_are_found_by_words_of_their_prompt(http: httpx.Client, words: str, found: list[str]) -> None:
    answer = http.get("/images", params={"prompt": words})
    assert (answer.status_code, prompts(http, answer.json())) == (200, found)


def test_images_are_found_by_model_and_listed_page_by_page(http: httpx.Client) -> None:
    pack = http.get("/capabilities").json()["pack"]["name"]
    assert len(http.get("/images", params={"model": pack}).json()["items"]) == len(PROMPTS)
    assert http.get("/images", params={"model": "other"}).json() == {"items": [], "next_cursor": None, "total": None}
    found, cursor = list[str](), None
    while True:
        page = http.get("/images", params={"prompt": "a", "limit": 1, **({"cursor": cursor} if cursor else {})}).json()
        found += prompts(http, page)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ["100% a_fox", "a red dog", "a red Fox at night"]
    assert http.get("/images", params={"prompt": "a" * 201}).status_code == 422
    assert http.get("/images", params={"prompt": "a", "cursor": "?"}).status_code == 422


def test_a_page_reads_a_bounded_number_of_images(http: httpx.Client, node: Node) -> None:
    condition = Image.lineage["prompt"].as_string().icontains("night")
    found, cursor = list[list[Any]](), None
    with closing(Database(node.settings.resolved_database_url)) as db, db.snapshot() as session:
        while cursor is not None or not found:
            rows, cursor = search_page(session, select(Image), condition, Image.id, 20, cursor, max_read=2)
            found.append([row.lineage["prompt"] for row in rows])
    assert found == [[], ["a red Fox at night"], []]
