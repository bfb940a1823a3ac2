import ast
import json
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from app.exporting.bundle import export_bundle
from app.exporting.classifier import Classifier, Library, ModelFacts, Network, Origin, Part
from app.exporting.scripts import predict_script

Make = Callable[..., Classifier]

HOSTILE = ('"""\nimport os\nos.abort()\n"""', "ثعلب", "two\u2028lines\r\n", "{x} %s \\", "\x00")

ALLOWED = {"PIL", "json", "pathlib", "safetensors", "sys", "timm", "torch", "torchvision", "transformers"}


@pytest.fixture
def bundle(classifier: Make, tmp_path: Path) -> Iterator[zipfile.ZipFile]:
    export_bundle(classifier(classes=HOSTILE, name=HOSTILE[0]), tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        yield archive


def test_a_bundle_has_everything(bundle: zipfile.ZipFile) -> None:
    assert set(bundle.namelist()) == {
        "LICENSE",
        "NOTICE",
        "README.md",
        "config.json",
        "labels.txt",
        "model.safetensors",
        "predict.py",
        "preprocessing.json",
    }
    assert bundle.testzip() is None


def test_labels_have_one_line_each_whatever_the_names_are(bundle: zipfile.ZipFile) -> None:
    lines = bundle.read("labels.txt").decode().splitlines()
    assert len(lines) == len(HOSTILE)
    assert lines[1:] == ["ثعلب", "two lines", "{x} %s \\", "class 4"]
    assert json.loads(bundle.read("config.json"))["label_names"] == list(HOSTILE)


def test_the_config_is_in_the_form_of_timms_hub(bundle: zipfile.ZipFile) -> None:
    config = json.loads(bundle.read("config.json"))
    assert config["architecture"] == "test_resnet"
    assert config["num_classes"] == len(HOSTILE)
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.4, 0.3]
    assert config["layout"] == "native"


def test_no_name_is_in_the_script(bundle: zipfile.ZipFile) -> None:
    script = bundle.read("predict.py").decode()
    assert "abort" not in script
    assert "ثعلب" not in script


def test_equal_classifiers_give_equal_bytes_with_no_date(classifier: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_bundle(classifier(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_weights_without_a_stated_licence_have_a_notice_and_no_licence(classifier: Make, tmp_path: Path) -> None:
    export_bundle(classifier(origin=Origin("somewhere")), tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        assert "LICENSE" not in archive.namelist()
        assert "Not stated by the source" in archive.read("NOTICE").decode()


@pytest.mark.parametrize(
    ("library", "is_native", "mode"),
    [
        case
        for case in product(("timm", "torchvision", "transformers"), (True, False), ("center", "squash"))
        if case[:2] != ("transformers", True)
    ],
)
def test_every_script_is_python_without_code_of_this_project(
    facts: Callable[..., ModelFacts], library: str, is_native: bool, mode: str
) -> None:
    changed = facts(network=Network(library, "any"), preprocessing={"crop": 8, "crop_mode": mode, "library": library})  # type: ignore[arg-type]
    script = predict_script(changed, is_native=is_native)
    assert modules_of(script) <= ALLOWED
    assert ("create_transform" in script) == ((library, mode) == ("timm", "squash"))


def modules_of(script: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("libraries", [("timm", "timm"), ("torchvision", "timm", "transformers")])
def test_a_script_of_several_backbones_imports_the_libraries_that_it_needs(
    facts: Callable[..., ModelFacts], libraries: tuple[Library, ...], mode: str
) -> None:
    parts = tuple(
        Part(
            f"part{number}",
            Network(library, HOSTILE[0]),
            {"crop": 8, "crop_mode": mode, "library": library},
            Origin(""),
        )
        for number, library in enumerate(libraries)
    )
    script = predict_script(facts(network=Network("combined", "any"), parts=parts), is_native=False)
    modules = modules_of(script)
    assert modules <= ALLOWED
    assert set(libraries) <= modules
    assert ("transformers" in modules) == ("transformers" in libraries)
    assert "abort" not in script


def test_the_bundle_of_several_backbones_has_each_with_its_terms(combined: Make, tmp_path: Path) -> None:
    for name in ("first", "second"):
        export_bundle(combined(), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    with zipfile.ZipFile(tmp_path / "first") as archive:
        config, notice = json.loads(archive.read("config.json")), archive.read("NOTICE").decode()
        assert "LICENSE" in archive.namelist()
        assert set(json.loads(archive.read("preprocessing.json"))) == {"a", "b"}
    assert [(part["name"], part["architecture"], part["license"]) for part in config["backbones"]] == [
        ("a", "test_resnet", "apache-2.0"),
        ("b", "test_efficientnet", "other"),
    ]
    assert "Weights of the backbone a: random numbers\nLicence: Apache-2.0" in notice
    assert "Weights of the backbone b: somewhere\nLicence: Not stated by the source" in notice
