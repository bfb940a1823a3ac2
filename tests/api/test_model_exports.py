"""GET /models/{id}/export and /card: files that are made once, and what stands in the way of one."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.torch import load

from app.db.session import Database
from app.exporting.errors import ExportError, ExportTimedOut, NotExportable
from app.modelpacks.pack import PackError
from app.node.combined import combined_facts
from app.services.store.recovery import sweep
from app.storage.layout import DataFolder
from app.training.probe import LinearProbe
from testing.fake_models import FakeModels, describe
from testing.node import Node, make_settings, serve
from testing.small_disk import small_disk
from testing.trained_models import add_model, colour_probe
from testing.waiting import wait_until

CLASSES = ["fox", 'a "quoted" <b>\nثعلب']
Add = Callable[..., str]


@pytest.fixture
def folder(node: Node) -> DataFolder:
    return DataFolder(node.settings.data_dir)


@pytest.fixture
def add(db: Database, folder: DataFolder) -> Add:
    def add(**columns: Any) -> str:
        return add_model(db, folder, CLASSES, **columns)

    return add


@pytest.fixture
def threads(node: Node) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads
        node.models.modules.gate.set()


def export(http: httpx.Client, model_id: str, export_format: str = "safetensors", **options: Any) -> httpx.Response:
    return http.get(f"/models/{model_id}/export", params={"format": export_format}, **options)


def kept(folder: DataFolder) -> list[Path]:
    return sorted(path for path in folder.exports.rglob("*") if path.is_file())


def combined(*names: str) -> dict[str, Any]:
    facts = combined_facts("+".join(names), [describe(name).facts for name in names])
    probe = colour_probe()
    return {
        "backbone": facts.name,
        "backbone_sha256": facts.weights_sha256,
        "lineage": {"dataset": {"name": "d"}, "backbone": facts.to_json()},
        "probe": LinearProbe(np.tile(probe.weight, len(names)), probe.bias),
    }


def metadata(content: bytes) -> dict[str, Any]:
    """Read the facts in a safetensors file; the library reads metadata from disks only."""
    size = int.from_bytes(content[:8], "little")  # of the header
    facts: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["classifier"])
    return facts


def test_a_model_is_one_file_with_its_facts(http: httpx.Client, add: Add) -> None:
    answer = export(http, add(name="fox-or-not"))
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="fox-or-not.safetensors"'
    tensors = load(answer.content)
    assert set(tensors) == {"backbone.channels", "head.weight", "head.bias"}
    assert tensors["head.weight"].shape == (2, 512)
    facts = metadata(answer.content)
    assert (facts["labels"], facts["name"], facts["licence"]) == (CLASSES, "fox-or-not", "Apache-2.0")
    assert facts["preprocessing"]["crop"] == 64
    assert facts["lineage"]["dataset"]["name"] == "made-of"


def test_a_bundle_is_a_zip_with_the_card(http: httpx.Client, add: Add) -> None:
    answer = export(http, add(name="b"), "bundle")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {"README.md", "predict.py", "model.safetensors", "LICENSE"} <= set(archive.namelist())
        assert "made\\-of" in archive.read("README.md").decode()


def test_the_second_request_gets_the_same_file_and_parts_of_it(node: Node, http: httpx.Client, add: Add) -> None:
    model_id = add()
    first, second = export(http, model_id), export(http, model_id)
    assert first.headers["etag"] == second.headers["etag"]
    assert first.content == second.content
    assert node.models.modules.loads == ["resnet18"]
    part = export(http, model_id, headers={"Range": "bytes=8-15", "If-Range": first.headers["etag"]})
    assert (part.status_code, part.content) == (206, first.content[8:16])
    unchanged = export(http, model_id, headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert "immutable" not in first.headers["cache-control"]  # another release may give another file


def test_a_damaged_file_is_made_again(node: Node, http: httpx.Client, add: Add, folder: DataFolder) -> None:
    model_id = add()
    first = export(http, model_id).content
    [path] = kept(folder)
    path.write_bytes(first[:-1] + b"?")
    assert export(http, model_id).content == first
    assert node.models.modules.loads == ["resnet18"] * 2


def test_requests_at_the_same_time_share_one_export(node: Node, add: Add, threads: ThreadPoolExecutor) -> None:
    model_id, modules = add(), node.models.modules
    modules.gate.clear()
    asked = [threads.submit(export, node.http, model_id) for _ in range(6)]
    wait_until(lambda: modules.loads)
    modules.gate.set()
    answers = [future.result() for future in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert modules.loads == ["resnet18"]


def test_a_client_that_leaves_does_not_end_the_export(node: Node, add: Add, threads: ThreadPoolExecutor) -> None:
    model_id, modules = add(), node.models.modules
    modules.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        export(node.http, model_id, timeout=0.5)
    asked = threads.submit(export, node.http, model_id)
    modules.gate.set()
    assert asked.result().status_code == 200
    assert modules.loads == ["resnet18"]


def test_more_exports_than_may_wait_are_refused(node: Node, add: Add, threads: ThreadPoolExecutor) -> None:
    ids = [add() for _ in range(12)]
    node.models.modules.gate.clear()
    asked: list[Future[httpx.Response]] = [threads.submit(export, node.http, model_id) for model_id in ids]
    finished = as_completed(asked)
    refused = [next(finished).result() for _ in range(3)]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "queue_full")}
    node.models.modules.gate.set()
    assert [future.result().status_code for future in finished] == [200] * 9


def test_a_deleted_model_takes_its_files_along(http: httpx.Client, add: Add, folder: DataFolder) -> None:
    model_id = add()
    for export_format in ("safetensors", "bundle"):
        assert export(http, model_id, export_format).status_code == 200
    assert len(kept(folder)) == 2
    assert http.delete(f"/models/{model_id}").status_code == 204
    assert kept(folder) == []
    assert export(http, model_id).status_code == 404
    assert http.get(f"/models/{model_id}/card").status_code == 404


def test_a_model_deleted_during_its_export_leaves_no_file(
    node: Node, add: Add, folder: DataFolder, threads: ThreadPoolExecutor
) -> None:
    model_id, modules = add(), node.models.modules
    modules.gate.clear()
    asked = threads.submit(export, node.http, model_id)
    wait_until(lambda: modules.loads)
    assert node.http.delete(f"/models/{model_id}").status_code == 204
    modules.gate.set()
    assert asked.result().status_code == 404
    assert kept(folder) == []


def test_files_of_models_that_are_gone_are_swept_and_others_stay(
    db: Database, http: httpx.Client, add: Add, folder: DataFolder
) -> None:
    model_id = add()
    export(http, model_id)
    folder.write("exports/0190-gone/0.3-abc.onnx", b"derived")
    assert sweep(db, folder) == 0
    assert [path.parent.name for path in kept(folder)] == [model_id]
    assert not (folder.root / ".lost+found").exists()


@pytest.mark.parametrize("backbone", [{"backbone_sha256": "0" * 64}, {"backbone": "gone"}])
def test_a_model_of_another_backbone_is_refused(node: Node, add: Add, backbone: dict[str, str]) -> None:
    answer = export(node.http, add(**backbone))
    assert (answer.status_code, answer.json()["code"]) == (409, "model_backbone_mismatch")
    assert node.models.modules.loads == []


def test_weights_that_change_before_they_are_loaded_are_refused(node: Node, add: Add, folder: DataFolder) -> None:
    node.models.modules.shas["resnet18"] = "0" * 64
    answer = export(node.http, add())
    assert (answer.status_code, answer.json()["code"]) == (409, "model_backbone_mismatch")
    assert kept(folder) == []


def test_a_model_on_several_backbones_is_one_file_with_all_of_them(node: Node, http: httpx.Client, add: Add) -> None:
    model_id = add(**combined("resnet18", "clip"))
    answer = export(http, model_id)
    assert answer.status_code == 200, answer.text
    tensors, facts = load(answer.content), metadata(answer.content)
    names = {"backbones.resnet18.channels", "backbones.clip.channels", "head.weight", "head.bias"}
    assert set(tensors) == names
    assert tensors["head.weight"].shape == (2, 1024)
    assert [(part["name"], part["input"], part["preprocessing"]["crop"]) for part in facts["backbones"]] == [
        ("resnet18", "pixels.resnet18", 64),
        ("clip", "pixels.clip", 64),
    ]
    assert node.models.modules.loads == ["resnet18", "clip"]
    with zipfile.ZipFile(io.BytesIO(export(http, model_id, "bundle").content)) as archive:
        notice, card = archive.read("NOTICE").decode(), archive.read("README.md").decode()
    for name in ("resnet18", "clip"):
        assert f"Weights of the backbone {name}: a fake {name}\nLicence: Apache-2.0\n" in notice
        assert f"- {name}: Apache\\-2\\.0." in card
    assert http.get(f"/models/{model_id}/card").status_code == 200


def test_several_backbones_of_which_one_has_other_weights_are_refused(node: Node, add: Add, folder: DataFolder) -> None:
    node.models.modules.shas["clip"] = "0" * 64
    answer = export(node.http, add(**combined("resnet18", "clip")))
    assert (answer.status_code, answer.json()["code"]) == (409, "model_backbone_mismatch")
    assert "clip" in answer.json()["detail"]
    assert kept(folder) == []


def test_a_backbone_that_is_gone_leaves_a_card(http: httpx.Client, add: Add) -> None:
    model_id = add(**combined("resnet18", "gone"))
    answer = export(http, model_id)
    assert (answer.status_code, answer.json()["code"]) == (409, "model_backbone_mismatch")
    card = http.get(f"/models/{model_id}/card")
    assert card.status_code == 200
    assert "a fake resnet18" in card.text
    assert "which are not on this node now" in card.text


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (PackError("photo: the file is broken."), 503, "model_not_ready"),
        (NotExportable("It has no form."), 422, "not_exportable"),
        (ExportTimedOut("It took too long."), 503, "export_timed_out"),
        (ExportError("It ended."), 500, "export_failed"),
    ],
)
def test_an_export_that_fails_says_why_and_may_be_tried_again(
    node: Node, add: Add, folder: DataFolder, fault: Exception, status: int, code: str
) -> None:
    model_id = add()
    node.models.modules.fault = fault
    answer = export(node.http, model_id)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"].endswith(str(fault))
    assert (status == 503) == ("retry-after" in answer.headers)
    assert kept(folder) == []
    assert list(folder.temporaries.glob("*")) == []
    node.models.modules.fault = None
    assert export(node.http, model_id).status_code == 200


def test_a_model_whose_file_is_gone_is_410(http: httpx.Client, add: Add, folder: DataFolder) -> None:
    model_id = add()
    folder.delete(folder.model_path(model_id))
    for path in ("export?format=bundle", "card"):
        answer = http.get(f"/models/{model_id}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "model_file_missing")


@pytest.mark.parametrize("query", ["", "?format=pickle", "?format=ONNX"])
def test_the_format_is_one_of_three(http: httpx.Client, add: Add, query: str) -> None:
    answer = http.get(f"/models/{add()}/export{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#query/format")


@pytest.mark.parametrize("name", ['a"; filename="b.exe', "a\r\nX-Evil: 1", "../../etc/passwd", "fox\u202egpj"])
def test_no_name_of_a_model_gets_out_of_the_header(http: httpx.Client, add: Add, name: str) -> None:
    answer = export(http, add(name=name))
    assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    disposition = answer.headers["content-disposition"]
    kind, _, value = disposition.partition("; ")
    assert kind == "attachment"
    file_name = value.removeprefix("filename*=utf-8''").removeprefix("filename=").strip('"')
    assert file_name.endswith(".safetensors")
    assert not set('"\r\n/; ') & set(file_name)


def test_a_full_disk_is_507_until_there_is_room(tmp_path: Path, database_url: str) -> None:
    with small_disk(4) as disk, serve(make_settings(disk.root / "data", database_url), FakeModels()) as node:
        db, folder = Database(database_url), DataFolder(disk.root / "data")
        model_id = add_model(db, folder, CLASSES)
        db.close()
        disk.fill()
        for export_format in ("safetensors", "bundle"):
            answer = export(node.http, model_id, export_format)
            assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert kept(folder) == []
        disk.make_room()
        assert export(node.http, model_id).status_code == 200


def test_the_card_has_figures_and_shows_names_literally(http: httpx.Client, add: Add) -> None:
    answer = http.get(f"/models/{add(name='a|b')}/card")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    header, body = answer.text.removeprefix("---\n").split("\n---\n", 1)
    assert "pipeline_tag: image-classification" in header
    assert "a\\|b" in body
    assert "| real and generated images, not measured apart | accuracy | 0.625 |" in body
    assert "<b>" not in body
    assert "format=bundle" in body
    unchanged = http.get(str(answer.url), headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304


def test_a_card_needs_no_backbone(http: httpx.Client, add: Add) -> None:
    lineage = {"backbone": {"name": "resnet18", "preprocessing": "a text of an old release"}}
    card = http.get(f"/models/{add(backbone_sha256='0' * 64, lineage=lineage)}/card")
    assert card.status_code == 200
    assert "not on this node now" in card.text


@pytest.mark.slow("starts the process that traces a network")
def test_a_format_that_a_model_does_not_have_is_looked_for_once(node: Node, add: Add) -> None:
    """The attempt takes seconds of a core."""
    model_id = add()
    first = export(node.http, model_id, "onnx")
    loads = list(node.models.modules.loads)
    again = export(node.http, model_id, "onnx")
    assert (first.status_code, again.status_code) == (422, 422)
    assert first.json()["detail"] == again.json()["detail"]
    assert node.models.modules.loads == loads
    assert export(node.http, model_id).status_code == 200
