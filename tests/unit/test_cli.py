"""What the command line shows."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.modelpacks import pack as packs
from tests.tiny import MANIFEST

QUALITY = {
    "generated": {"clip_class_accuracy": 0.968, "classifier_top1": 0.98},
    "held_out_drawings": {"vae_psnr_db": {"overall": 28.44}},
}


@pytest.fixture
def demo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packs, "demo_pack_folder", lambda: tmp_path)
    monkeypatch.setenv("FOXHOUND_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize(
    ("quality", "line"),
    [(QUALITY, "demo as measured: CLIP class 97 %, ResNet18 98 %, VAE 28.4 dB\n"), ({}, None)],
)
def test_the_list_of_models_sums_up_what_was_measured(demo_folder: Path, quality: object, line: str | None) -> None:
    files = [{"path": "clip/a", "sha256": "0" * 64, "size": 45_300_000}]
    (demo_folder / "manifest.json").write_text(
        json.dumps({**MANIFEST, "name": "demo", "files": files, "quality": quality})
    )
    shown = CliRunner().invoke(app, ["models", "list"]).output
    assert "45.3 MB" in shown
    assert ("as measured" not in shown) if line is None else (line in shown)
    (row, _) = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).output)
    assert (row["bytes"], row["files"], row["quality"], row["made"]) == (45_300_000, 1, quality, {})
