"""Views of a generated image as other hands might have drawn its subject.

Images of one model look alike: the same paper, the same strokes, the subject at the same place and size. A head that
is trained on them learns that too, and is right on 100 % of further images of the model and on far fewer of anybody
else's. A view cuts the subject out, repaints it, and places it on paper of another colour. Works on pixels; imports no
models. Equal seeds give equal views. Any thread may call it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps
from scipy import ndimage

from app.services.images.repaint import repaint

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]

WHITE = (255, 255, 255)
# A subject covers more than a speck and less than the whole picture; else the cut found something else.
LEAST_SHARE, MOST_SHARE = 0.06, 0.7
# The largest difference of neighbouring pixels inside a background, of 255: a wash or a sky changes more slowly.
SMOOTH = 7.0
# Mask operations count pixels of a picture with this side, and are scaled to others.
_SIDE = 128


@dataclass(frozen=True, slots=True)
class Look:
    """What a view changes.

    Attributes:
        cuts: The subject is cut out and placed on paper; where no subject is found, the picture is cropped instead.
        repaints: Colours and texture change.
    """

    cuts: bool = True
    repaints: bool = True


# The views of each image beside the image itself: three by other hands, one only repainted, one only cut out. The last
# two keep a share of the images near the model's own.
LOOKS = (Look(), Look(), Look(), Look(cuts=False), Look(repaints=False))


@dataclass(frozen=True, slots=True)
class Subject:
    """Where the subject of a picture is.

    Attributes:
        mask: (H, W), bool.
        box: Left, top, right and bottom of the mask, in pixels; right and bottom are outside.
    """

    mask: Mask
    box: Box


def make_view(image: Image.Image, look: Look, seed: int) -> Image.Image:
    """Return a view of a generated image, of the same size.

    Args:
        image: RGB.
        look: What changes.
        seed: Determines every random choice, 0 ... 2^64 - 1.
    """
    rng = np.random.default_rng(seed)
    subject = find_subject(np.asarray(image)) if look.cuts else None
    if subject is not None:
        return _on_paper(image, subject, look, rng)
    view = _cropped(image, rng)
    return repaint(view, rng) if look.repaints else view


def find_subject(pixels: Pixels) -> Subject | None:
    """Find the subject in front of a background that changes slowly and reaches the border.

    The background is what is connected to the border without an edge; the subject is the rest, without thin lines such
    as a horizon, holes filled. Of several parts those with at least a quarter of the largest's pixels are kept.

    Returns:
        None where what was found is too small or too large to be the subject.

    Shapes:
        pixels: (H, W, 3), uint8.
    """
    unit = max(1, round(min(pixels.shape[:2]) / _SIDE))
    parts, num_parts = ndimage.label(ndimage.binary_opening(~_background(pixels), iterations=2 * unit))
    if num_parts == 0:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = (sizes >= sizes.max() / 4) & (sizes > 0)
    margin = 4 * unit
    padded = ndimage.binary_closing(np.pad(kept[parts], margin), iterations=3 * unit)
    mask: Mask = ndimage.binary_fill_holes(padded)[margin:-margin, margin:-margin]
    if not LEAST_SHARE < mask.mean() < MOST_SHARE:
        return None
    rows, columns = np.nonzero(mask)
    return Subject(mask, (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))


def _background(pixels: Pixels) -> Mask:
    """Return which pixels are connected to the border through pixels without an edge. **Shapes**: (H, W), bool."""
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), (0.7, 0.7, 0))
    change = np.zeros(pixels.shape[:2], np.float32)
    down, right = (np.abs(np.diff(smooth, axis=axis)).max(axis=2) for axis in (0, 1))
    for part, steps in ((change[:-1], down), (change[1:], down), (change[:, :-1], right), (change[:, 1:], right)):
        np.maximum(part, steps, out=part)
    regions, _ = ndimage.label(change < SMOOTH)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    background: Mask = np.isin(regions, border[border > 0])
    return background


def _on_paper(image: Image.Image, subject: Subject, look: Look, rng: np.random.Generator) -> Image.Image:
    """Place the cut subject on white or pale paper: another size, place, slant and side."""
    paper = WHITE if rng.random() < 0.8 else tuple(int(value) for value in rng.integers(120, 256, 3))
    alpha = Image.fromarray(subject.mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.8)).crop(subject.box)
    cut = image.crop(subject.box)
    if look.repaints:  # before it is on the paper, which keeps its colour
        cut = repaint(_over(cut, alpha, paper), rng)
    drawn = _over(cut, alpha, paper)
    largest = float(rng.uniform(0.6, 1.0)) * min(image.size) / max(drawn.size)
    stretch = float(rng.uniform(0.85, 1.18))
    size = (max(8, round(drawn.width * largest * stretch)), max(8, round(drawn.height * largest / stretch)))
    drawn = drawn.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        drawn = ImageOps.mirror(drawn)
    drawn = drawn.rotate(float(rng.normal(0, 8)), Image.Resampling.BICUBIC, fillcolor=paper)
    page = Image.new("RGB", image.size, paper)
    left, top = (
        round((whole - part) * float(rng.uniform(0.2, 0.8))) for whole, part in zip(page.size, size, strict=True)
    )
    page.paste(drawn, (left, top))
    return page


def _over(image: Image.Image, alpha: Image.Image, paper: tuple[int, ...]) -> Image.Image:
    page = Image.new("RGB", image.size, paper)
    page.paste(image, mask=alpha)
    return page


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop 0.7 to 1 of the sides at a random place, scale to the old size, and mirror every second view."""
    share = float(rng.uniform(0.7, 1.0))
    width, height = share * image.width, share * image.height
    left, top = float(rng.uniform(0, image.width - width)), float(rng.uniform(0, image.height - height))
    box = (left, top, left + width, top + height)
    view = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(view) if rng.random() < 0.5 else view
