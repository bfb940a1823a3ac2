"""`python -m demo_pack.drawing.blueprint FOLDER`: the drawings as blueprints, each with its caption in a text file.

A style that the demo pack does not know, for the LoRA in `examples/loras`. Picture `index` is a pure function of its
number. Imports no models and no training code.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from demo_pack.drawing import CLASSES, Drawing, draw_scene, scene
from demo_pack.drawing.styles import LUMA, Array, blur, clipped, pixels, unit

SEED = 6
PAPER = np.array([0.07, 0.25, 0.55], dtype=np.float32)
INK = np.array([0.93, 0.97, 1.0], dtype=np.float32)
GRID = 16  # pixels of a picture of 128


def blueprint(picture: Array) -> Array:
    """White contours on blue paper with a faint grid. **Shapes**: (H, W, 3) in and out, 0 to 1."""
    scale = unit(picture.shape)
    planes = [blur(picture[..., channel], 0.7 * scale) for channel in range(3)]
    slopes = [np.hypot(*np.gradient(plane)) for plane in planes]
    lines = np.clip(np.max(slopes, axis=0) * 5 * scale - 0.25, 0, 1)
    rows, columns = (np.arange(side) % round(GRID * scale) == 0 for side in picture.shape[:2])
    grid = 0.12 * (rows[:, None] | columns[None, :])
    ink = np.clip(lines + grid + 0.18 * (picture @ LUMA), 0, 1)
    return clipped(PAPER + (INK - PAPER) * ink[..., None])


def draw_blueprint(index: int, side: int = 128) -> Drawing:
    """Draw picture `index`: the classes in turn, with the captions that the drawing has in any style."""
    rng = np.random.default_rng([SEED, index])
    shown = replace(scene(rng), class_name=CLASSES[index % len(CLASSES)])
    if shown.colour == "golden" and shown.class_name != "dog":
        shown = replace(shown, colour="yellow")
    state = rng.bit_generator.state
    captions = draw_scene(shown, rng, side, side).captions
    rng.bit_generator.state = state
    plain = draw_scene(replace(shown, style="flat"), rng, side, side)
    image = Image.fromarray((blueprint(pixels(plain.image) / np.float32(255)) * 255 + 0.5).astype(np.uint8))
    return replace(plain, image=image, captions=captions, style=shown.style)


def write(folder: Path, count: int) -> None:
    """Write pictures and captions, one of each picture's captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        drawing = draw_blueprint(index)
        drawing.image.save(folder / f"{index:05}.png")
        (folder / f"{index:05}.txt").write_text(drawing.captions[0] + "\n")


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(prog="python -m demo_pack.drawing.blueprint", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=288)
    args = parser.parse_args()
    write(args.folder, args.count)


if __name__ == "__main__":
    main()
