"""Encode demo-pack pictures with each setting, and print a table and one line of JSON.

One thread, its own CPU time (so that other load on the machine counts little), the median of the repetitions. Pictures
are `docs/images/*.png` as drawn, and enlarged to 512 pixels: smooth, and with grain as a camera's or a larger model's.
"""

import argparse
import io
import json
import statistics
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow_version

PICTURES = ("fox.png", "fresh-fox.png", "fresh-dog.png")
FOLDER = Path("docs/images")
LARGE_SIDE = 512
GRAIN = 4.0  # standard deviation, in levels of 255

Options = Mapping[str, Any]
SETTINGS: dict[str, tuple[str, Options]] = {
    **{f"png level {level}": ("png", {"compress_level": level}) for level in (0, 1, 3, 6, 9)},
    "png run lengths": ("png", {"compress_level": 1, "compress_type": zlib.Z_RLE}),
    "png huffman only": ("png", {"compress_level": 1, "compress_type": zlib.Z_HUFFMAN_ONLY}),
    **{f"jpeg quality {quality}": ("jpeg", {"quality": quality}) for quality in (90, 95)},
    **{f"webp quality {quality}": ("webp", {"quality": quality}) for quality in (90, 95)},
    "webp quality 95, method 2": ("webp", {"quality": 95, "method": 2}),
}


def pictures(folder: Path) -> dict[str, list[Image.Image]]:
    """Return the pictures by what was done to them; the same ones each time."""
    drawn = [Image.open(folder / name).convert("RGB") for name in PICTURES]
    large = [image.resize((LARGE_SIDE, LARGE_SIDE), Image.Resampling.BICUBIC) for image in drawn]
    rng = np.random.default_rng(0)
    noise = rng.normal(0, GRAIN, (LARGE_SIDE, LARGE_SIDE, 3))
    grained = [Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)) for image in large]
    return {f"{drawn[0].width} px": drawn, f"{LARGE_SIDE} px": large, f"{LARGE_SIDE} px, grain": grained}


def encode(image: Image.Image, image_format: str, options: Options) -> bytes:
    """Return the image as a file without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def measure(images: list[Image.Image], image_format: str, options: Options, repeats: int) -> dict[str, float]:
    """Return mean milliseconds of CPU and mean bytes over the images, `repeats` >= 1 times each."""
    medians, sizes = [], []
    for image in images:
        sizes.append(len(encode(image, image_format, options)))  # also the warm-up
        took = []
        for _ in range(repeats):
            began = time.thread_time()
            encode(image, image_format, options)
            took.append(time.thread_time() - began)
        medians.append(statistics.median(took) * 1_000)
    return {"ms": round(statistics.mean(medians), 3), "bytes": round(statistics.mean(sizes))}


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return the results as Markdown: a row for each setting, a column for each kind of picture."""
    kinds = list(results)
    lines = ["| setting | " + " | ".join(f"{kind}: ms, bytes" for kind in kinds) + " |"]
    lines.append("| --- |" + " --- |" * len(kinds))
    for name in results[kinds[0]]:
        cells = [f"{results[kind][name]['ms']:.2f}, {results[kind][name]['bytes']:,.0f}" for kind in kinds]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.encoding", description=__doc__)
    parser.add_argument("--pictures", type=Path, default=FOLDER, help="folder with " + ", ".join(PICTURES))
    parser.add_argument("--repeats", type=int, default=9, help="encodings of each picture (default: 9)")
    arguments = parser.parse_args()
    results = {
        kind: {name: measure(images, *setting, arguments.repeats) for name, setting in SETTINGS.items()}
        for kind, images in pictures(arguments.pictures).items()
    }
    print(table(results))
    versions = {"pillow": pillow_version, "zlib_ng": features.version_feature("zlib_ng")}
    print(json.dumps({"bench": "encoding", "repeats": arguments.repeats, **versions, "results": results}))


if __name__ == "__main__":
    main()
