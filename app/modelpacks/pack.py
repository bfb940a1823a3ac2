"""Model packs: manifest, folder, and verification of files against the manifest.

Reads manifests and hashes files; imports no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from app.image_spec import FewStepSettings
from app.modelpacks.sd15 import SD15_FACTS
from app.step_rows import SPACED_SCHEDULERS, TimestepSpacing

PARTS = ("diffusion", "clip", "classifier", "backbone")

MANIFEST = "manifest.json"

# Used where no threshold was measured on the CLIP model.
NEAR_DUPLICATE_COSINE = 0.99

# Advice for a missing or broken file, by the pack's name.
REMEDIES: Mapping[str, str] = {
    "demo": "It ships with Foxhound: install Foxhound again.",
    "sd15": "Run `foxhound models fetch sd15`.",
}


class PackError(Exception):
    """A model pack cannot be used; the message names the file and what to do, without a path of this machine."""

    def __init__(self, detail: str) -> None:
        """Keep the text, which is for people, as `detail` too."""
        self.detail = detail
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class PackFile:
    """One file of a pack: its path below the pack's folder, with `/`, its hash and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class FewStep:
    """Weights that are added to a pack's UNet for `speed: fast`: a LoRA, and the settings that it was trained for."""

    file: PackFile
    settings: FewStepSettings


@dataclass(frozen=True, slots=True)
class ModelPack:
    """A set of weights that work together.

    Attributes:
        revision: The version of the weights; that of the few-step weights is their hash.
        folder: The folder with the parts.
        native_size: Width and height in pixels that the diffusion model was trained for.
        min_side: Least width or height in pixels.
        max_side: Largest width or height in pixels.
        default_noise_scheduler: Used where a request names none.
        files: The files that the manifest lists; empty for a pack that is not fetched yet.
        overrides: Local folders that replace parts, by part; for `diffusion` also a single-file checkpoint.
        quality: Measurements of the weights from the manifest; empty where it has none.
        made: Provenance of the weights from the manifest; empty where it has none.
        near_duplicate_cosine: Smallest cosine of CLIP embeddings of two near-duplicate images, -1 ... 1.
        few_step: None where the pack has none, or where another diffusion model replaces its own.
    """

    name: str
    revision: str
    licence: str
    folder: Path
    native_size: int
    min_side: int
    max_side: int
    default_noise_scheduler: str
    files: tuple[PackFile, ...] = ()
    overrides: Mapping[str, Path] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    near_duplicate_cosine: float = NEAR_DUPLICATE_COSINE
    few_step: FewStep | None = None

    @property
    def total_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(file.size for file in self.files)

    def part(self, name: str) -> Path:
        """Return the folder of a part, whether it exists or not."""
        return self.overrides.get(name, self.folder / name)

    def label(self, path: Path) -> str:
        """Return a file's name for people, relative to the pack or to the local folder that replaces a part."""
        for name, folder in self.overrides.items():
            if path == folder and folder.suffix:
                return f"the local file for {name}: {path.name}"
            if path.is_relative_to(folder):
                return f"the local folder for {name}: {path.relative_to(folder).as_posix()}"
        return f"{self.name}: {path.relative_to(self.folder).as_posix()}"

    def fault(self, path: Path, what: str) -> PackError:
        """Build the error for a missing or wrong file, with advice."""
        is_override = any(path.is_relative_to(folder) for folder in self.overrides.values())
        remedy = "Check the path in the settings." if is_override else REMEDIES.get(self.name, "")
        return PackError(f"{self.label(path)} {what}. {remedy}".strip())


def demo_pack_folder() -> Path:
    """Return the folder of the demo pack, which is part of this package."""
    return Path(__file__).parent / "demo" / "pack"


def find_pack(name: str, models_dir: Path, overrides: Mapping[str, Path] | None = None) -> ModelPack:
    """Find a pack by the name that the settings give it.

    An `sd15` that was not fetched is returned too, with its pinned properties: each part then fails to load with a
    `PackError` that names the missing file, and parts from local folders work.

    Args:
        name: `demo` or `sd15`.
        models_dir: The folder of fetched packs.
        overrides: Part to local folder.

    Raises:
        PackError: There is no pack or part of that name, or the manifest cannot be read.
    """
    overrides = dict(overrides or {})
    if unknown := set(overrides) - set(PARTS):
        raise PackError(f"A pack has no part {', '.join(sorted(unknown))}; its parts are {', '.join(PARTS)}.")
    if name == "demo":
        return read_pack(demo_pack_folder(), overrides, name="demo")
    if name != "sd15":
        raise PackError("There is no such model pack. The packs are demo and sd15.")
    folder = models_dir / "sd15"
    if not (folder / MANIFEST).exists():
        return _make_pack({**SD15_FACTS, "files": []}, folder, overrides)
    return read_pack(folder, overrides, name="sd15")


def read_pack(folder: Path, overrides: Mapping[str, Path] | None = None, *, name: str = "") -> ModelPack:
    """Read the manifest of a pack.

    Args:
        folder: The pack's folder.
        overrides: Part to local folder.
        name: The name of the pack for the message.

    Raises:
        PackError: The manifest is missing, unreadable or invalid.
    """
    remedy = REMEDIES.get(name, "A fetched pack has one: run `foxhound models fetch sd15`.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return _make_pack(manifest, folder, dict(overrides or {}))
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise PackError(
                f"{name or folder.name}: {MANIFEST} cannot be read. Check its permissions and its disk."
            ) from error
        raise PackError(f"{name or folder.name}: {MANIFEST} is missing. {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{name or folder.name}: {MANIFEST} is not a manifest of a model pack. {remedy}") from error


def verify_part(pack: ModelPack, part: str) -> Path:
    """Check a part's files against the manifest, by size and SHA-256, and return its folder, or its only file.

    A part from a local folder or file has no manifest; its errors show when it is loaded.

    Raises:
        PackError: The part is missing, or one of its files is missing, truncated or another file.
    """
    folder = pack.part(part)
    is_file = part == "diffusion" and part in pack.overrides and folder.is_file()
    if not is_file and not folder.is_dir():
        raise pack.fault(folder, "is missing")
    if part not in pack.overrides:
        for file in pack.files:
            if PurePosixPath(file.path).parts[0] == part:
                verify_file(pack, file)
    return folder


def verify_file(pack: ModelPack, file: PackFile) -> None:
    """Check one file against its entry in the manifest.

    Raises:
        PackError: It is missing, truncated or another file.
    """
    path = pack.folder / file.path
    if not path.is_file():
        raise pack.fault(path, "is missing")
    if path.stat().st_size != file.size:
        raise pack.fault(path, "is truncated or too long")
    if sha256_of(path) != file.sha256:
        raise pack.fault(path, "is not the file that the manifest lists (its SHA-256 differs)")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(folder: Path, path: Path) -> PackFile:
    """Create the manifest's entry for a file below the pack's folder."""
    return PackFile(path.relative_to(folder).as_posix(), sha256_of(path), path.stat().st_size)


def _make_pack(manifest: Mapping[str, Any], folder: Path, overrides: Mapping[str, Path]) -> ModelPack:
    files = tuple(_read_file(file) for file in manifest["files"])
    few_step = manifest.get("few_step") if "diffusion" not in overrides else None
    # A measurement of the pack's own CLIP model does not apply to another one.
    measured = {} if "clip" in overrides else dict(manifest.get("near_duplicates", {}))
    return ModelPack(
        name=str(manifest["name"]),
        revision=str(manifest["revision"]),
        licence=str(manifest["licence"]),
        folder=folder,
        native_size=int(manifest["native_size"]),
        min_side=int(manifest["min_side"]),
        max_side=int(manifest["max_side"]),
        default_noise_scheduler=str(manifest["default_noise_scheduler"]),
        files=files,
        overrides=overrides,
        quality=dict(manifest.get("quality", {})),
        made=dict(manifest.get("made", {})),
        near_duplicate_cosine=float(measured.get("cosine", NEAR_DUPLICATE_COSINE)),
        few_step=None if few_step is None else _read_few_step(few_step),
    )


def _read_file(entry: Mapping[str, Any]) -> PackFile:
    """Return a file's entry; raises ValueError for a path that leads out of the pack."""
    file = PackFile(str(entry["path"]), str(entry["sha256"]), int(entry["size"]))
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("A path of the manifest leads out of the pack.")
    return file


def _read_few_step(entry: Mapping[str, Any]) -> FewStep:
    """Return the few-step weights; raises ValueError for settings that no image can have."""
    settings = FewStepSettings(
        num_inference_steps=int(entry["num_inference_steps"]),
        max_num_inference_steps=int(entry["max_num_inference_steps"]),
        guidance_scale=float(entry["guidance_scale"]),
        scheduler=entry["scheduler"],
        timestep_spacing=entry["timestep_spacing"],
    )
    is_drawable = 1 <= settings.num_inference_steps <= settings.max_num_inference_steps
    is_known = settings.scheduler in SPACED_SCHEDULERS and settings.timestep_spacing in get_args(TimestepSpacing)
    if not (is_drawable and is_known and 0 <= settings.guidance_scale <= 1):
        raise ValueError("The settings of the few-step weights cannot be used.")
    return FewStep(_read_file(entry["file"]), settings)
