"""No room where the framework keeps a form's files until they are read: 507 as anywhere else, and the node goes on."""

import tempfile
from collections.abc import Iterator

import httpx
import pytest

from testing.small_disk import SmallDisk, small_disk
from testing.uploads import create_empty, picture, upload

# Noise of this size is more than the megabyte that a form's file may have in memory.
LARGE = (1024, 512)


@pytest.fixture
def temporary_disk(http: httpx.Client) -> Iterator[SmallDisk]:
    """A disk of its own for temporary files, once the node runs."""
    before = tempfile.tempdir
    with small_disk(4) as disk:
        tempfile.tempdir = str(disk.root)
        yield disk
        tempfile.tempdir = before


def test_a_form_that_finds_no_room_is_507(http: httpx.Client, temporary_disk: SmallDisk) -> None:
    dataset = create_empty(http)
    file = picture(1, size=LARGE)
    temporary_disk.fill()
    answers = [
        http.post("/classify", files={"image": file}),
        http.post("/clip-score", files={"image": file}, data={"labels": ["fox", "dog"]}),
        upload(http, dataset["id"], [file]),
    ]
    for answer in answers:
        assert answer.status_code == 507, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "storage_full"
    temporary_disk.make_room()
    assert upload(http, dataset["id"], [file]).status_code == 201
