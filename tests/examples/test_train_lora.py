"""`examples/train_lora.py`: the file that it writes, and that equal settings give equal files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from app.modelpacks.fusing import layer_shapes
from app.modelpacks.loading import load_diffusion
from app.modelpacks.lora_file import read_lora
from app.modelpacks.pack import ModelPack, read_pack
from testing.tiny import build_tiny_pack

pytestmark = pytest.mark.slow("starts a program that imports torch, three times")

SCRIPT = Path(__file__).parents[2] / "examples" / "train_lora.py"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    return read_pack(build_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "fox"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (80, 64 + number), (40, 60, 200 + number)).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("a blue fox\n")
    return folder.parent


def train(folder: Path, pack: ModelPack, pictures: Path, steps: int) -> str:
    settings = {"PICTURES": pictures, "MODEL": pack.part("diffusion"), "STEPS": steps, "BATCH": 2, "RANK": 3}
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "LAYERS": "all", "RATE": "1e-2", "NAME": "blue"}
    env |= {"OMP_NUM_THREADS": "1", "DEVICE": "cpu", **{name: str(value) for name, value in settings.items()}}
    folder.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_file_fits_the_model_and_equal_settings_give_the_same(
    tmp_path: Path, pack: ModelPack, pictures: Path
) -> None:
    told = train(tmp_path / "whole", pack, pictures, 3)
    assert "step 1 of 3" in told
    assert "of 3 pictures" in told
    whole = tmp_path / "whole" / "blue.safetensors"
    parts = load_diffusion(pack, torch.device("cpu"), torch.float32)
    shapes = {"unet": layer_shapes(parts.unet), "text_encoder": layer_shapes(parts.text_encoder)}
    file = read_lora(whole, shapes)
    assert file.rank == 3
    assert file.touched("unet") == set(shapes["unet"]), "every layer"
    assert all(delta.abs().sum() > 0 for _, delta in file.deltas("unet", shapes))

    again = train(tmp_path / "whole", pack, pictures, 3)
    assert "step" not in again, "a finished run is not trained again"
    train(tmp_path / "other", pack, pictures, 3)
    first, second = load_file(whole), load_file(tmp_path / "other" / "blue.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list(tmp_path.rglob("*.part"))
