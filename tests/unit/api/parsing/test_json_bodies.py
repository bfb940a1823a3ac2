"""A body's values are counted before it is parsed, in time that nobody notices."""

import json
import time

import pytest

from app.api.parsing.json_bodies import RECIPE_BODY, JsonBounds, load_json
from app.errors import AppError, Malformed, PayloadTooLarge

BOUNDS = JsonBounds.of_bytes(RECIPE_BODY)


def largest_recipe() -> dict[str, object]:
    classes = [{"name": f"class {i}", "prompts": [f"a, b: {k}" for k in range(100)]} for i in range(1_000)]
    return {"name": "large", "classes": classes, "variables": {f"v{k}": ["x, y"] * 200 for k in range(8)}}


def test_the_largest_recipe_is_read_with_all_its_commas() -> None:
    recipe = largest_recipe()
    body = json.dumps(recipe).encode()
    assert len(body) <= RECIPE_BODY
    assert body.count(b",") > BOUNDS.num_values
    assert load_json(body, BOUNDS) == recipe


@pytest.mark.parametrize(
    "text", ["", "a, b", 'quoted "x, y", {z}: [', "back\\slash\\", '\\"', "line\nbreak", "狐, 🦊", "\u2028,,,,"]
)
def test_what_stands_in_strings_is_not_counted(text: str) -> None:
    bounds = JsonBounds(1_000, num_values=5, num_members=2)
    for body in (json.dumps({text: [text, 1]}), json.dumps({text: [text, 1]}, ensure_ascii=False)):
        assert load_json(body.encode(), bounds) == {text: [text, 1]}
        with pytest.raises(PayloadTooLarge):
            load_json(f"[{body},{body}, {body}]".encode(), bounds)


def filled(unit: bytes, num_bytes: int = RECIPE_BODY - 100) -> bytes:
    return b"[" + unit * (num_bytes // len(unit)) + b"0]"


HOSTILE = {
    "lists": filled(b"[],"),
    "lists of 29 MB": filled(b"[],", 29_000_000),
    "objects": filled(b"{},"),
    "zeros": filled(b"0,"),
    "empty strings": filled(b'"",'),
    "members": b"{" + b",".join(b'"k%d":1' % k for k in range(60_000)) + b"}",
    "one member again and again": b"{" + filled(b'"k":1,')[1:-2] + b'"k":1}',
    "depth": b"[" * (RECIPE_BODY // 2) + b"]" * (RECIPE_BODY // 2),
    "depth of objects": b'{"a":' * 300_000 + b"1" + b"}" * 300_000,
    "unclosed depth": b"[" * RECIPE_BODY,
    "some depth": b"[" * 2_000 + b"]" * 2_000,
    "quotes": b'"' * RECIPE_BODY,
    "open strings": filled(b'"\\",'),
    "escapes": b'"' + b"\\n" * 15_000_000 + b'"',
    "backslashes": b"\\" * RECIPE_BODY,
    "a long number": filled(b"9"),
    "spaces": b" " * RECIPE_BODY,
    "utf-16": filled(b"[],").decode().encode("utf-16"),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_body_built_to_be_slow_is_refused_at_once(body: bytes) -> None:
    started_s = time.process_time()
    with pytest.raises((PayloadTooLarge, Malformed)) as caught:
        load_json(body, BOUNDS)
    assert time.process_time() - started_s < 0.5  # 29 MB of lists: 10 to 20 s
    assert isinstance(caught.value, AppError)
