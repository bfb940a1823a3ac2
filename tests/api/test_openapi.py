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
UNLISTED = {"/docs", "/docs/assets", "/docs/assets/docs.js", "/openapi.json", "/openapi.compat.json"}
PROBLEM_REF, NOT_READY_REF = "#/components/schemas/Problem", "#/components/schemas/NotReady"


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
        if "requestBody" in operation:
            assert {"400", "408", "413", "415", "422"} <= errors.keys(), path
        if "{" in path:
            assert "404" in errors, path
        for status, answer in errors.items():
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": NOT_READY_REF if path == "/readyz" and status == "503" else PROBLEM_REF}, path
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


def schemas_in(value: object) -> Iterator[dict]:
    """Yield every schema of the document: components, bodies, parameters, answers, and their parts."""
    if isinstance(value, list):
        for part in value:
            yield from schemas_in(part)
    elif isinstance(value, dict):
        if value.keys() & {"type", "anyOf", "oneOf", "allOf"} and not isinstance(value.get("type"), dict):
            yield value
        for name, part in value.items():
            if name not in ("examples", "example", "not"):
                yield from schemas_in(part)


def test_nothing_is_untyped_and_every_union_can_be_told_apart(document: dict) -> None:
    def kind(option: dict) -> str:
        name = option.get("$ref", "").removeprefix("#/components/schemas/")
        return str((document["components"]["schemas"][name] if name else option).get("type", name))

    for schema in schemas_in(document):
        assert schema.get("additionalProperties") not in (True, {}), schema
        if schema.get("type") == "object":
            assert schema.keys() & {"properties", "additionalProperties"}, schema
        if schema.get("type") == "array":
            assert schema["items"], schema
        assert "discriminator" in schema or "oneOf" not in schema, schema
        kinds = [kind(option) for option in schema.get("anyOf", [])]
        assert len(set(kinds)) == len(kinds), schema


def test_every_enum_has_one_name(document: dict) -> None:
    named_ones = document["components"]["schemas"].values()
    parts = [part for one in named_ones for part in schemas_in(one) if part is not one]
    inline = [part for part in (*parts, *schemas_in(document["paths"])) if len(part.get("enum", [])) > 1]
    assert inline == []
    named = [tuple(one["enum"]) for one in document["components"]["schemas"].values() if "enum" in one]
    assert len(set(named)) == len(named)


def test_every_response_is_described_with_its_headers(document: dict) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            assert answer["description"] not in ("", "Successful Response"), (method, path)
            assert "X-Request-Id" in answer["headers"], (method, path, status)
            if status == "202":
                assert "Location" in answer["headers"], path
            for media_type, media in answer.get("content", {}).items():
                assert media.keys() <= {"schema", "x-example-stream"}, (path, media_type)


def test_examples_can_be_sent_as_they_are(document: dict, http: httpx.Client) -> None:
    sent = 0
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        name = content.get("application/json", {}).get("schema", {}).get("$ref", "").split("/")[-1]
        for example in document["components"]["schemas"].get(name, {}).get("examples", []):
            if "{" not in path and path != "/keys":  # a node's first key is created by a command
                answer = http.request(method, path, json=example)
                assert answer.is_success, (path, answer.text)
                sent += 1
    assert sent >= 7


def test_every_reference_leads_somewhere(document: dict) -> None:
    text = json.dumps(document)
    for kind in ("schemas", "headers"):
        names = {part.split('"')[0] for part in text.split(f'"#/components/{kind}/')[1:]}
        assert names == document["components"][kind].keys()


def test_links_lead_from_what_is_created_to_what_can_be_done_with_it(document: dict) -> None:
    named = {operation["operationId"]: (path, operation) for _, path, operation in operations(document)}
    for link in document["components"]["links"].values():
        path, _ = named[link["operationId"]]
        assert all(f"{{{parameter}}}" in path for parameter in link["parameters"]), link
    created = {
        "createDataset": ("202", {"getDataset", "extendDataset", "uploadDatasetImages", "deleteDataset", "cancelJob"}),
        "createTrainJob": ("202", {"getTrainJob", "cancelTrainJob", "getTrainReport", "getJob"}),
        "generateImages": ("200", {"getGeneration", "deleteGeneration", "getImage"}),
        "createEvaluation": ("202", {"getJob", "followJob"}),
        "listModels": ("200", {"getModel", "exportModel", "createEvaluation", "deleteModel"}),
    }
    for operation_id, (status, reached) in created.items():
        links = named[operation_id][1]["responses"][status]["links"]
        assert reached <= links.keys(), operation_id
    assert "getTrainJob" not in named["createDataset"][1]["responses"]["202"]["links"], "its job trains nothing"


def test_the_documentation_page_needs_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://www.w3.org", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page.text
        assert http.get(f"/docs/assets/{asset}").status_code == 200
