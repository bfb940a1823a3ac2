"""Pages of other origins in a real browser: refused by default, served where they are allowed."""

import base64
import logging
from typing import Any

import httpx
import pytest

from testing.chromium import Tab
from testing.uploads import CLASSES, create_empty, picture
from testing.waiting import wait_until
from tests.browser.conftest import Start

pytestmark = pytest.mark.browser

LOG = "foxhound.access"
JOB = {"prompt": "a fox", "num_inference_steps": 1}


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG)


# Another port of the node's address is the same site, another name is another site; browsers say so.
SITES = pytest.mark.parametrize("site", ["127.0.0.1", "app.test"])

READ = "async url => (await fetch(url)).json()"
POST_JSON = """async (url, body, headers) => {
  const answer = await fetch(url, {
    method: 'POST', body: JSON.stringify(body), headers: {'Content-Type': 'application/json', ...headers}});
  return {status: answer.status, location: answer.headers.get('location'), id: answer.headers.get('x-request-id'),
          seed: answer.headers.get('x-foxhound-seed'), type: answer.headers.get('content-type')}
}"""
POST_FORM = """async (url, fields, name, data, mode) => {
  const form = new FormData();
  for (const [key, value] of Object.entries(fields)) form.append(key, value);
  form.append(name, await (await fetch(`data:image/png;base64,${data}`)).blob(), 'a.png');
  const answer = await fetch(url, {method: 'POST', body: form, mode});
  return {status: answer.status, type: answer.type, body: answer.type == 'opaque' ? null : await answer.json()}
}"""
POST_NOTHING = "async url => (await fetch(url, {method: 'POST', mode: 'no-cors'})).type"
FIRST_EVENT = """url => new Promise((resolve, reject) => {
  const events = new EventSource(url);
  events.addEventListener('status', event => { events.close(); resolve(JSON.parse(event.data).status) });
  events.onerror = () => { events.close(); reject(new TypeError()) };
})"""
SHOW_IMAGE = """(url, crossOrigin) => new Promise(resolve => {
  const image = new Image();
  if (crossOrigin) image.crossOrigin = crossOrigin;
  image.onload = () => resolve(image.naturalWidth);
  image.onerror = () => resolve(0);
  image.src = url;
})"""
SUBMIT = """(url, fields, data) => {
  const form = document.createElement('form');
  Object.assign(form, {method: 'POST', action: url, enctype: data ? 'multipart/form-data' : ''});
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement('input');
    Object.assign(input, {name, value});
    form.append(input);
  }
  if (data) {
    const bytes = Uint8Array.from(atob(data.base64), letter => letter.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
    const input = document.createElement('input');
    Object.assign(input, {type: 'file', name: data.name, files: files.files});
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}"""
FAILED = {"failed": "TypeError"}  # all that a page learns of an answer that it may not read
UPLOAD = {"class_name": CLASSES[0], "split": "train"}


def encoded(seed: int = 1) -> str:
    return base64.b64encode(picture(seed)).decode()


def await_answers(caplog: pytest.LogCaptureFixture, request: str, number: int = 1) -> None:
    """Wait until the node has logged so many answers of a method, path and status.

    It logs a request after its answer has left, so the page may know of the answer first.
    """

    def logged() -> list[str]:
        return [" ".join(one.getMessage().split()[:3]) for one in caplog.records if one.name == LOG]

    wait_until(lambda: logged().count(request) == number)


def state(http: httpx.Client) -> list[Any]:
    """Everything that a request could have added or changed."""
    return [http.get(path).json() for path in ("/jobs", "/generations", "/images", "/datasets")]


@SITES
def test_by_default_a_page_reads_nothing_and_changes_nothing(
    start: Start, tab: Tab, other_port: int, site: str, caplog: pytest.LogCaptureFixture
) -> None:
    http = start().http
    node = f"http://127.0.0.1:{http.base_url.port}"
    job, dataset = http.post("/generate", json=JOB, headers={"Prefer": "respond-async"}).json(), create_empty(http)
    before = state(http)
    tab.open(f"http://{site}:{other_port}/")

    assert tab.run(READ, f"{node}/jobs") == FAILED
    assert tab.run(POST_JSON, f"{node}/generate", JOB, {}) == FAILED
    assert tab.run(FIRST_EVENT, f"{node}/jobs/{job['id']}/events") == FAILED
    uploads = "/datasets/{dataset_id}/images"
    for route, fields, name in (("/classify", {}, "image"), (uploads, UPLOAD, "files")):
        path = route.format(dataset_id=dataset["id"])
        for mode in ("cors", "no-cors"):  # the node's resource policy keeps even an opaque answer from the page
            assert tab.run(POST_FORM, f"{node}{path}", fields, name, encoded(), mode) == FAILED
        await_answers(caplog, f"POST {route} 403", number=2)
    assert tab.run(POST_NOTHING, f"{node}/jobs/{job['id']}/cancel") == FAILED
    await_answers(caplog, "POST /jobs/{job_id}/cancel 403")
    assert state(http) == before


@SITES
@pytest.mark.parametrize("name", ["127.0.0.1", "fox.test"])  # a browser trusts a loopback address, and says more to it
def test_a_form_of_another_page_changes_nothing(start: Start, tab: Tab, other_port: int, site: str, name: str) -> None:
    http = start(allowed_hosts="fox.test").http
    node = f"http://{name}:{http.base_url.port}"
    job, dataset = http.post("/generate", json=JOB, headers={"Prefer": "respond-async"}).json(), create_empty(http)
    before = state(http)
    file = {"base64": encoded()}
    for path, fields, data in (
        ("/classify", {}, {**file, "name": "image"}),
        (f"/datasets/{dataset['id']}/images", UPLOAD, {**file, "name": "files"}),
        (f"/jobs/{job['id']}/cancel", {}, None),
    ):
        tab.open(f"http://{site}:{other_port}/")
        with tab.page.expect_navigation(url=f"{node}{path}"):
            tab.page.evaluate(f"args => ({SUBMIT})(...args)", [f"{node}{path}", fields, data])
        assert tab.status_of(path) == 403
        assert "cross_site_refused" in tab.page.content()
        assert ("sec-fetch-site" in tab.responses[-1].request.all_headers()) == (name == "127.0.0.1")
    assert state(http) == before


@SITES
@pytest.mark.parametrize("name", ["127.0.0.1", "fox.test"])
@pytest.mark.parametrize("is_public", [False, True])
def test_a_page_of_an_allowed_origin_calls_the_whole_api(
    start: Start, tab: Tab, other_port: int, site: str, name: str, is_public: bool
) -> None:
    page = f"http://{site}:{other_port}"
    http = start(cors_origins="*" if is_public else f"https://other.test,{page}", allowed_hosts="fox.test").http
    node = f"http://{name}:{http.base_url.port}"
    dataset = create_empty(http)
    tab.open(page)

    assert tab.run(READ, f"{node}/jobs") == {"items": [], "next_cursor": None, "total": 0}
    headers = {"Prefer": "respond-async", "Idempotency-Key": "k", "Authorization": "Bearer k", "X-API-Key": "k"}
    accepted: Any = tab.run(POST_JSON, f"{node}/generate", JOB, headers)
    assert (accepted["status"], accepted["location"][:6], len(accepted["id"])) == (202, "/jobs/", 32)
    image: Any = tab.run(POST_JSON, f"{node}/generate", {**JOB, "seed": 7}, {"Accept": "image/png"})
    assert (image["status"], image["type"], image["seed"]) == (200, "image/png", "7")
    refused: Any = tab.run(POST_JSON, f"{node}/generate", {}, {})
    assert (refused["status"], refused["type"], len(refused["id"])) == (422, "application/problem+json", 32)
    assert tab.run(FIRST_EVENT, f"{node}{accepted['location']}/events") == "queued"
    classified: Any = tab.run(POST_FORM, f"{node}/classify", {}, "image", encoded(), "cors")
    assert (classified["status"], len(classified["body"]["predictions"]) > 0) == (200, True)
    uploaded: Any = tab.run(POST_FORM, f"{node}/datasets/{dataset['id']}/images", UPLOAD, "files", encoded(), "cors")
    assert (uploaded["status"], uploaded["body"]["num_accepted"]) == (201, 1)
    url = f"{node}/images/{uploaded['body']['files'][0]['image_id']}"
    assert tab.run(SHOW_IMAGE, url, "anonymous") == 16
    assert tab.run(SHOW_IMAGE, f"{url}?", None) == (16 if is_public else 0)  # without an origin, all sites are alike
    cancelled = "async url => (await fetch(url, {method: 'POST'})).status"
    assert tab.run(cancelled, f"{node}{accepted['location']}/cancel") == 200
    assert http.get(accepted["location"]).json()["status"] == "cancelled"


def test_a_page_beside_an_allowed_one_is_refused(
    start: Start, tab: Tab, other_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    http = start(cors_origins=f"http://app.test:{other_port}").http
    node = f"http://127.0.0.1:{http.base_url.port}"
    for number, page in enumerate((f"http://evil.example:{other_port}/", f"http://127.0.0.1:{other_port}/"), 1):
        tab.open(page)
        assert tab.run(READ, f"{node}/jobs") == FAILED
        assert tab.run(POST_FORM, f"{node}/classify", {}, "image", encoded(), "cors") == FAILED
        await_answers(caplog, "POST /classify 403", number)


def test_under_a_foreign_name_a_page_gets_nothing(start: Start, tab: Tab) -> None:
    http = start().http
    node = f"http://evil.example:{http.base_url.port}"  # as after DNS rebinding
    assert tab.open(f"{node}/docs") == 421
    assert "host_not_allowed" in tab.page.content()
    # The attacker's page was loaded before its name was pointed to the node: it is of the node's own origin.
    tab.page.route(f"{node}/attack", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    assert tab.open(f"{node}/attack") == 200
    read: Any = tab.run(READ, f"{node}/jobs")
    posted: Any = tab.run(POST_JSON, f"{node}/generate", JOB, {"Prefer": "respond-async"})
    assert (read["code"], posted["status"]) == ("host_not_allowed", 421)
    assert http.get("/jobs").json()["items"] == []
