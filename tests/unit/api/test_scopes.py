"""Every route has a scope, and a request's path finds the scope of its route."""

import pytest
from fastapi import APIRouter

from app.access.caller import Scope
from app.api.access.scopes import COMPAT_NEEDS, JOB_SCOPES, NEEDS, OPEN, RouteNeeds, require_listed
from app.api.compat.surfaces import routers_of
from app.config import COMPAT_SURFACES, Settings
from app.main import ROUTERS, create_app
from app.services.jobs.kinds import JOB_KINDS

# The table has them before they are served.
NOT_YET: set[tuple[str, str]] = set()
# Of other services, to which these tell nothing.
COMPAT_OPEN: set[str] = set()
# Served beside the routers.
BESIDE = {("GET", "/openapi.json"), ("GET", "/openapi.compat.json"), ("GET", "/docs"), ("GET", "/ui")}

routes = [
    (method, route.path) for module in ROUTERS for route in module.router.routes for method in route.methods - {"HEAD"}
]
compat_routes = [
    (method, route.path)  # type: ignore[attr-defined]
    for router in routers_of(COMPAT_SURFACES)
    for route in router.routes
    for method in route.methods  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("method", "path"), [*routes, *compat_routes])
def test_every_route_is_in_the_table(method: str, path: str) -> None:
    need = {**NEEDS, **COMPAT_NEEDS}[method, path]
    assert RouteNeeds().find(method, path.replace("{", "").replace("}", "")) == (path, need)


def test_the_table_has_no_other_routes() -> None:
    assert set(NEEDS) - set(routes) <= NOT_YET | BESIDE
    assert set(COMPAT_NEEDS) == set(compat_routes)


def test_every_route_that_changes_something_needs_a_scope_that_says_so() -> None:
    for (method, path), need in {**NEEDS, **COMPAT_NEEDS}.items():
        if method != "GET":
            assert need, path
            assert Scope.READ not in need, path


def test_only_what_tells_nothing_is_open() -> None:
    opened = {path for (_, path), need in {**NEEDS, **COMPAT_NEEDS}.items() if need == OPEN}
    documents = {"/openapi.json", "/openapi.compat.json", "/docs", "/docs/errors", "/docs/errors/{code}"}
    assert opened == documents | {"/", "/ui", "/livez", "/readyz", *COMPAT_OPEN}


def test_an_application_with_an_unlisted_route_is_not_built() -> None:
    router = APIRouter()
    router.add_api_route("/secrets", lambda: None)
    with pytest.raises(LookupError, match="GET /secrets"):
        require_listed(router.routes)


def test_every_kind_of_job_has_a_scope() -> None:
    assert {kind.kind for kind in JOB_KINDS} == set(JOB_SCOPES)


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("HEAD", "/datasets", {Scope.READ}),
        ("GET", "/docs/assets/swagger-ui.css", set()),
        ("POST", "/docs/assets/swagger-ui.css", None),
        ("GET", "/docs/assets", None),
        ("GET", "/ui/static/console.css", set()),
        ("GET", "/ui/images/a", set()),
        ("GET", "/livez/", None),
        ("TRACE", "/livez", set()),
        ("GET", "/datasets/livez", {Scope.READ}),
        ("GET", "/datasets/a/b/c", None),
        ("GET", "/models/compare", {Scope.READ}),
        ("GET", "", None),
        ("GET", "nothing", None),
        ("BREW", "/datasets", None),
    ],
)
def test_a_request_finds_its_route_and_no_other(method: str, path: str, need: set[Scope] | None) -> None:
    found = RouteNeeds().find(method, path)
    assert (found and found.need) == (None if need is None else frozenset(need))


def test_other_methods_of_an_open_path_are_the_routers_and_counted_at_its_template() -> None:
    needs = RouteNeeds()
    assert needs.find("TRACE", "/docs/errors/any") == ("/docs/errors/{code}", OPEN)
    assert needs.find("PUT", "/livez") == ("/livez", OPEN)
    assert needs.find("PUT", "/datasets") is None


def test_the_document_names_the_scopes_of_every_operation() -> None:
    document = create_app(Settings(_env_file=None)).openapi()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            need = NEEDS[method.upper(), path]
            assert set(operation["x-scopes"]) == set(need), path
            assert operation["security"] == ([{"bearer": []}, {"apiKey": []}] if need else []), path
            assert {"401", "403"} <= operation["responses"].keys() or not need, path
            assert need or not {"401", "403"} & operation["responses"].keys(), path
