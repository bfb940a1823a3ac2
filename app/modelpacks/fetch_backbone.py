"""Downloads a backbone of timm's hub, or copies one from a folder: `foxhound models fetch backbone NAME`.

Takes `config.json` and `model.safetensors` alone. May be interrupted and repeated: the folder gets its name when both
files are complete. Runs in the CLI; the service never calls it.
"""

import os
import shutil
from pathlib import Path

import httpx
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers

from app.modelpacks.download import OnProgress
from app.modelpacks.fetch import Hub
from app.modelpacks.pack import PackError
from app.modelpacks.sd15 import HubSource
from app.modelpacks.timm_models import CONFIG, FOLDER, NAME, WEIGHTS, TimmModel, read_timm_model

# Backbones that every node has.
RESERVED = ("resnet18", "clip", "photo")


def fetch_backbone(
    name: str,
    models_dir: Path,
    on_progress: OnProgress,
    *,
    local: Path | None = None,
    hub_url: str | None = None,
    revision: str = "main",
) -> TimmModel:
    """Download a backbone, or copy it.

    Args:
        name: Of the repository `timm/NAME`, and of the backbone.
        models_dir: The folder in which `backbones` gets a folder of this name.
        on_progress: Called with file name, bytes so far, and bytes in total where known.
        local: A folder with both files, instead of the hub.
        hub_url: Another hub; default: the setting of huggingface_hub.
        revision: Branch or commit of the repository.

    Raises:
        PackError: The name is not possible, a file could not be fetched or read, or Foxhound cannot use the model.
    """
    if not NAME.fullmatch(name) or name in RESERVED:
        raise PackError("A backbone cannot have this name. Give the name of one of timm's models, without `timm/`.")
    target = models_dir / FOLDER / name
    if target.is_dir():
        return read_timm_model(name, target)
    # A leading dot: no backbone has such a name, so the service does not list it.
    part = models_dir / FOLDER / f".{name}.part"
    if local is not None:
        _copy(local, part)
    else:
        source = HubSource(part="", repo_id=f"timm/{name}", revision=revision, files=(CONFIG, WEIGHTS))
        with httpx.Client(headers=build_hf_headers()) as client:
            Hub(source, hub_url or constants.ENDPOINT, client).fetch(part, on_progress)
    try:
        model = read_timm_model(name, part)
    except PackError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    os.replace(part, target)
    return model


def _copy(local: Path, part: Path) -> None:
    part.mkdir(parents=True, exist_ok=True)
    for file in (CONFIG, WEIGHTS):
        if not (local / file).is_file():
            raise PackError(f"The folder has no {file}. It must have {CONFIG} and {WEIGHTS}, as on timm's hub.")
        shutil.copyfile(local / file, part / file)
