"""Manifests, and finding packs by name."""

import json
import shutil
from pathlib import Path

import pytest

from app.modelpacks.pack import PARTS, PackError, demo_pack_folder, find_pack, read_pack, verify_part
from app.modelpacks.sd15 import SD15_FACTS
from testing.tiny import MANIFEST, write_manifest
from tests.unit.modelpacks.conftest import CopyParts


def test_a_manifest_is_read(built_pack: Path) -> None:
    pack = read_pack(built_pack)
    assert (pack.name, pack.revision, pack.licence) == ("tiny", "1", "Apache-2.0")
    assert (pack.native_size, pack.min_side, pack.max_side) == (64, 16, 192)
    assert pack.default_noise_scheduler == "pndm"
    assert "diffusion/unet/config.json" in {file.path for file in pack.files}
    assert pack.part("clip") == built_pack / "clip"


def test_quality_and_provenance_may_be_missing_in_a_manifest(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("clip")
    pack = read_pack(own_pack)
    assert (pack.quality, pack.made) == ({}, {})
    assert pack.total_bytes == sum(file.size for file in pack.files) > 0
    write_manifest(own_pack, quality={"load_seconds": 1.5}, made={"how": "by hand"})
    pack = read_pack(own_pack)
    assert (pack.quality, pack.made) == ({"load_seconds": 1.5}, {"how": "by hand"})


@pytest.mark.parametrize("part", ["diffusion", "clip", "classifier"])
def test_an_untouched_part_is_verified(built_pack: Path, part: str) -> None:
    assert verify_part(read_pack(built_pack), part) == built_pack / part


def test_a_missing_manifest_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"manifest\.json is missing.*foxhound models fetch sd15") as caught:
        read_pack(tmp_path)
    assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"files": 3}',
        json.dumps({**MANIFEST, "files": [], "quality": 3}),
        '{"name": "tiny", "files": [{"path": "a"}]}',
        "\x00",
    ],
)
def test_an_invalid_manifest_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(PackError, match="not a manifest"):
        read_pack(tmp_path)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "clip/../../secret", ""])
def test_a_manifest_cannot_reach_outside_its_pack(copy_parts: CopyParts, path: str) -> None:
    own_pack = copy_parts("clip")
    manifest = json.loads((own_pack / "manifest.json").read_text())
    manifest["files"].append({"path": path, "sha256": "0" * 64, "size": 1})
    (own_pack / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackError, match="not a manifest"):
        read_pack(own_pack)


def damage_missing(path: Path) -> None:
    path.unlink()


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_missing, "is missing"),
        (damage_truncated, "is truncated"),
        (damage_changed, "SHA-256 differs"),
    ],
)
def test_a_damaged_file_is_named(copy_parts: CopyParts, damage: object, words: str) -> None:
    own_pack = copy_parts("clip", "diffusion")
    pack = read_pack(own_pack)
    assert callable(damage)
    damage(own_pack / "clip" / "model.safetensors")
    with pytest.raises(PackError, match=rf"clip/model\.safetensors.*{words}") as caught:
        verify_part(pack, "clip")
    assert str(own_pack) not in caught.value.detail
    verify_part(pack, "diffusion")  # the other parts are not concerned


def test_a_missing_part_is_named(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("diffusion")
    with pytest.raises(PackError, match="tiny: clip is missing"):
        verify_part(read_pack(own_pack), "clip")


def test_an_unfetched_sd15_is_known_but_each_part_is_missing(tmp_path: Path) -> None:
    pack = find_pack("sd15", tmp_path)
    assert (pack.name, pack.native_size) == ("sd15", 512)
    for part in PARTS:
        with pytest.raises(PackError, match=f"{part} is missing. Run `foxhound models fetch sd15`"):
            verify_part(pack, part)


def test_a_fetched_sd15_is_read_from_the_models_folder(built_pack: Path, tmp_path: Path) -> None:
    shutil.copytree(built_pack / "clip", tmp_path / "sd15" / "clip")
    write_manifest(tmp_path / "sd15", **SD15_FACTS)
    pack = find_pack("sd15", tmp_path)
    assert pack.revision == SD15_FACTS["revision"]
    verify_part(pack, "clip")


def test_a_part_may_come_from_a_local_folder(built_pack: Path, tmp_path: Path) -> None:
    pack = find_pack("sd15", tmp_path, {"clip": built_pack / "clip"})
    assert verify_part(pack, "clip") == built_pack / "clip"
    with pytest.raises(PackError):
        verify_part(pack, "diffusion")


def test_a_local_folder_that_is_missing_is_named_without_its_path(tmp_path: Path) -> None:
    pack = find_pack("sd15", tmp_path, {"clip": tmp_path / "nowhere"})
    with pytest.raises(PackError, match=r"local folder for clip.*Check the path in the settings") as caught:
        verify_part(pack, "clip")
    assert "nowhere" not in caught.value.detail


def test_a_part_that_no_pack_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no part vae"):
        find_pack("sd15", tmp_path, {"vae": tmp_path})


def test_an_unknown_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no such model pack"):
        find_pack("../demo", tmp_path)


def test_the_demo_pack_is_part_of_the_package() -> None:
    assert demo_pack_folder().parts[-4:] == ("app", "modelpacks", "demo", "pack")


def test_the_near_duplicate_cosine_applies_to_the_packs_own_clip_alone(built_pack: Path, tmp_path: Path) -> None:
    demo = find_pack("demo", tmp_path)
    measured = json.loads((demo_pack_folder() / "manifest.json").read_text())["near_duplicates"]
    assert measured["independent_max"] < demo.near_duplicate_cosine == measured["cosine"] <= measured["copies_min"]
    assert find_pack("demo", tmp_path, {"clip": built_pack / "clip"}).near_duplicate_cosine == 0.99
    assert find_pack("sd15", tmp_path).near_duplicate_cosine == 0.99


FEW_STEP = {
    "file": {"path": "few-step/unet.safetensors", "sha256": "0" * 64, "size": 1},
    "num_inference_steps": 4,
    "max_num_inference_steps": 8,
    "guidance_scale": 1.0,
    "scheduler": "ddim",
    "timestep_spacing": "trailing",
}


def test_few_step_weights_are_described_beside_the_revision(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("clip")
    assert read_pack(own_pack).few_step is None
    write_manifest(own_pack, few_step=FEW_STEP)
    few_step = read_pack(own_pack).few_step
    assert few_step is not None
    assert (few_step.file.path, few_step.settings.scheduler) == ("few-step/unet.safetensors", "ddim")
    assert read_pack(own_pack, {"diffusion": own_pack}).few_step is None, "they are for the pack's own UNet"


@pytest.mark.parametrize(
    "change",
    [
        {"file": {"path": "../unet.safetensors", "sha256": "", "size": 1}},
        {"file": None},
        {"num_inference_steps": 0},
        {"max_num_inference_steps": 3},
        {"guidance_scale": 7.5},
        {"scheduler": "ddpm"},
        {"timestep_spacing": "even"},
    ],
    ids=str,
)
def test_few_step_weights_with_settings_that_no_image_can_have_are_rejected(
    copy_parts: CopyParts, change: dict[str, object]
) -> None:
    own_pack = copy_parts("clip")
    write_manifest(own_pack, few_step={**FEW_STEP, **change})
    with pytest.raises(PackError, match="not a manifest"):
        read_pack(own_pack)
