"""The OpenAPI file: committed, current, and complete in what it says."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from app.main import ROUTERS, create_app

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
# Served, but no part of the contract.
UNLISTED = {"/docs", "/docs/assets", "/docs/assets/docs.js", "/openapi.json"}
PROBLEM_REF = "#/components/schemas/Problem"


@pytest.fixture(scope="module")
def document() -> dict:
    return create_app(Settings(_env_file=None)).openapi()


def operations(document: dict) -> Iterator[tuple[str, str, dict]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_committed_file_is_current(document: dict) -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == document, "run `make openapi`"


def test_the_export_is_the_same_each_time(document: dict) -> None:
    again = create_app(Settings(_env_file=None)).openapi()
    assert json.dumps(again) == json.dumps(document)


def test_every_route_is_in_the_file_or_on_the_list_of_others(document: dict) -> None:
    listed = {route.path for module in ROUTERS for route in module.router.routes}
    app = create_app(Settings(_env_file=None))
    others = {route.path for route in app.routes if hasattr(route, "path")}
    assert set(document["paths"]) == listed
    assert others == UNLISTED


def test_operation_ids_are_unique_and_in_camel_case(document: dict) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(name.isalnum() and name[0].islower() for name in ids)


def test_every_operation_has_a_summary_a_tag_and_problems_for_its_errors(document: dict) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"], path
        assert len(operation["tags"]) == 1, path
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert "500" in errors, (method, path)
        if method == "POST" and "requestBody" in operation:
            assert {"400", "408", "413", "415", "422"} <= errors.keys(), path
        if "{" in path:
            assert "404" in errors, path
        for status, answer in errors.items():
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": PROBLEM_REF}, (path, status)
            assert status != "503" or "Retry-After" in answer["headers"]


def test_requests_refuse_unknown_fields_and_every_text_and_list_is_bounded(document: dict) -> None:
    schemas = document["components"]["schemas"]
    judging = ("ClipScoreRequest", "ClassifyRequest")
    for name in ("GenerateRequest", *judging, "DatasetCreate", "DatasetExtend", "TrainJobCreate"):
        assert schemas[name]["additionalProperties"] is False, name
        for field, schema in schemas[name]["properties"].items():
            for option in schema.get("anyOf", [schema]):
                kind = option.get("type")
                if kind == "string" and "enum" not in option and "const" not in option:
                    assert "maxLength" in option or "pattern" in option, (name, field)
                if kind == "array":
                    assert "maxItems" in option, (name, field)
                if kind in ("integer", "number"):
                    assert {"minimum", "exclusiveMinimum"} & option.keys(), (name, field)
                    assert {"maximum", "exclusiveMaximum"} & option.keys(), (name, field)


def test_every_reference_leads_somewhere(document: dict) -> None:
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= document["components"]["schemas"].keys()


def test_the_documentation_page_needs_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://www.w3.org", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page.text
        assert http.get(f"/docs/assets/{asset}").status_code == 200
