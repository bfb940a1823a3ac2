"""The command line: draw at each weight, judge, print the table, and write the sheet.

The style of the shipped LoRA is white lines on blue, so its measure is the share of blue pixels. Images are kept in the
working folder. The judge is that of `bench.demo_pack`; its first run draws and trains for minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from app.image_spec import ImageSpec, LoraUse
from app.modelpacks.pack import demo_pack_folder, read_pack
from app.training.intervals import wilson
from bench.demo_pack import sheets
from bench.demo_pack.judge import judge_drawings, judge_votes, train_judge
from bench.demo_pack.loading import load_pack
from bench.demo_pack.metrics import top_k
from bench.demo_pack.reading import clip_probabilities
from bench.demo_pack.words import natural_subject, painting
from bench.fast.drawing import Artist
from bench.speed.measure import STYLES
from demo_pack.drawing.blueprint import draw_blueprint

WEIGHTS = (0.0, 0.5, 1.0)
SEED = 4000
COLUMNS = 9
# Of 255: the hues of 195 to 240 degrees, and a saturation of 45 %.
BLUE_HUES = (138, 170)
LEAST_SATURATION = 115


def blue_share(image: Image.Image) -> float:
    """Return the share of clearly blue pixels, 0 to 1."""
    hue, saturation, _ = np.moveaxis(np.asarray(image.convert("HSV")), -1, 0)
    is_blue = (hue >= BLUE_HUES[0]) & (hue <= BLUE_HUES[1]) & (saturation >= LEAST_SATURATION)
    return float(is_blue.mean())


def make_specs(classes: Sequence[str], count: int, name: str, weight: float) -> list[ImageSpec]:
    """Ask for the classes in turn, each in its natural colour, in four styles; weight 0 is no LoRA."""
    loras = (LoraUse(name, weight),) if weight else ()
    spec = ImageSpec("", num_inference_steps=20, scheduler="dpmpp_2m", width=128, height=128, loras=loras)
    prompts = [
        painting(natural_subject(classes[index % len(classes)]), STYLES[index // len(classes) % len(STYLES)])
        for index in range(count)
    ]
    return [replace(spec, prompt=prompt, seed=SEED + index) for index, prompt in enumerate(prompts)]


def line(label: str, hits: dict[str, NDArray[np.bool_]], blue: float) -> str:
    """Lay out the figures of one kind of pictures."""
    shares = [wilson(int(each.sum()), len(each)) for each in hits.values()]
    texts = [f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in shares]
    return f"{label:<22} {' '.join(f'{text:>26}' for text in texts)} {blue:>8.3f}"


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.lora", description="Measure a LoRA of a blue style.")
    parser.add_argument("--lora", type=Path, default=Path("examples/loras/blueprint.safetensors"))
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings, kept pictures, the judge")
    parser.add_argument("--prompts", type=int, default=72, help="images of each weight")
    parser.add_argument("--sheet", type=Path, help="a JPEG of the first nine prompts, a row for each weight")
    parser.add_argument("--judge-drawings", type=int, default=12_000, help="a multiple of 250")
    parser.add_argument("--judge-steps", type=int, default=2400, help="steps that the judge is trained for")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse()
    folder = demo_pack_folder()
    pack = load_pack(folder)
    drawings = judge_drawings(args.workdir, torch.get_num_threads(), args.judge_drawings)
    judge = train_judge(drawings, pack.classes, args.workdir / "report", args.judge_steps)
    artist = Artist(read_pack(folder), args.workdir / "lora", args.lora.parent)
    wanted = [index % len(pack.classes) for index in range(args.prompts)]
    pictures = {
        f"weight {weight}": artist.images(make_specs(pack.classes, args.prompts, args.lora.stem, weight))
        for weight in WEIGHTS
    }
    rows = [images[:COLUMNS] for images in pictures.values()]
    # What CLIP and the judge say of the style itself, which neither was trained on.
    pictures["drawn blueprints"] = [draw_blueprint(index).image for index in range(args.prompts)]
    figures = {}
    print(f"{f'{args.prompts} images each':<22} {'CLIP class':>26} {'judge':>26} {'blue':>8}")
    for label, images in pictures.items():
        hits = {
            "clip": top_k(clip_probabilities(pack, images, pack.classes), wanted),
            "judge": top_k(judge_votes(judge, images), wanted),
        }
        blue = float(np.mean([blue_share(image) for image in images]))
        figures[label] = {**{name: float(each.mean()) for name, each in hits.items()}, "blue": blue}
        print(line(label, hits, blue))
    if args.sheet:
        sheets.page(rows).save(args.sheet, "JPEG", quality=80, optimize=True)
    print(json.dumps({"revision": pack.revision, "lora": args.lora.name, "figures": figures}))


if __name__ == "__main__":
    main()
