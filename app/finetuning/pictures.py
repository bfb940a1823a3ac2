"""Training and validation pictures as batches: decoded, augmented and preprocessed on a few threads, ahead of use.

A picture's order and changes are functions of seed, epoch and its index alone, so that a repeated epoch sees the same
pixels, in any number of threads. Imports no engine. `BatchLoader` is used by one thread; its pool does the work.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from app.error_codes import ErrorCode
from app.errors import AppError
from app.finetuning.errors import UnreadablePicture
from app.finetuning.plan import Example
from app.finetuning.settings import AugmentSettings
from app.modelpacks.preprocessing import Preprocessing

Decode = Callable[[bytes], Image.Image]
Batch = tuple[torch.Tensor, torch.Tensor]

# Batches being prepared while one is trained on; 16 pictures of 224 pixels are 10 MB.
AHEAD = 2
_DRAWS = 10


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of the training pictures: that of the linear probe, whose generator draws one for each epoch.

    Args:
        num_examples: N.
        seed: Of the fine-tuning.
        epoch: Counted from 1.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epoch - 1):
        torch.randperm(num_examples, generator=generator)
    order: list[int] = torch.randperm(num_examples, generator=generator).tolist()
    return order


def dice_of(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one picture in one epoch."""
    return np.random.default_rng([seed, epoch, index])


def augmented(
    image: Image.Image, augment: AugmentSettings, preprocessing: Preprocessing, dice: np.random.Generator
) -> torch.Tensor:
    """Cut out a random part, mirror it or not, change its colours, and normalise it.

    Shapes:
        returns: (3, crop, crop), float32.

    Source:
        torchvision `RandomResizedCrop`, `RandomHorizontalFlip` and `ColorJitter`, which use torch's global generator.
    """
    interpolation = InterpolationMode(preprocessing.interpolation)
    side = [preprocessing.crop, preprocessing.crop]
    if augment.area is None:
        part = functional.center_crop(functional.resize(image, [preprocessing.resize], interpolation), side)
    else:
        box = _draw_box(image.width, image.height, augment.area, augment.ratio, dice)
        part = functional.resized_crop(image, *box, side, interpolation, antialias=True)
    if augment.flip and dice.random() < 0.5:
        part = functional.hflip(part)
    if augment.colour:
        low, high = 1 - augment.colour, 1 + augment.colour
        for change in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
            part = change(part, dice.uniform(low, high))
    pixels = functional.convert_image_dtype(functional.pil_to_tensor(part), torch.float32)
    normalised: torch.Tensor = functional.normalize(pixels, list(preprocessing.mean), list(preprocessing.std))
    return normalised


def load_picture(path: Path, decode: Decode) -> Image.Image:
    """Read and decode a picture.

    Raises:
        UnreadablePicture: The file is missing, or is no picture.
    """
    try:
        return decode(path.read_bytes())
    except OSError as error:
        detail = f"The image file {path.name} is gone. Repair the dataset."
        raise UnreadablePicture(detail, code=ErrorCode.IMAGE_FILE_MISSING) from error
    except (AppError, ValueError) as error:
        detail = f"The image file {path.name} cannot be decoded. Repair the dataset, or delete the image."
        raise UnreadablePicture(detail, code=ErrorCode.IMAGE_FILE_DAMAGED) from error


class BatchLoader:
    """Iterates over the batches of some examples; at most `AHEAD` are prepared in advance."""

    def __init__(
        self,
        examples: Sequence[Example],
        order: Sequence[int],
        batch_size: int,
        prepare: Callable[[int], torch.Tensor],
        pool: Executor,
    ) -> None:
        """Start preparing the first batches.

        Args:
            examples: The pictures.
            order: Their indices, in the order of use.
            batch_size: Pictures of a batch, >= 1.
            prepare: From an index to the pixels (3, H, W); called on the pool's threads.
            pool: Its threads prepare the pictures.
        """
        self._examples = examples
        self._batches = iter([order[start : start + batch_size] for start in range(0, len(order), batch_size)])
        self._prepare = prepare
        self._pool = pool
        self._waiting: deque[tuple[Sequence[int], list[Future[torch.Tensor]]]] = deque()
        for _ in range(AHEAD):
            self._enqueue()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Return pixels (B, 3, H, W) and labels (B,), int64, of the next batch; raises what `prepare` raised."""
        if not self._waiting:
            raise StopIteration
        self._enqueue()
        indices, futures = self._waiting.popleft()
        labels = torch.tensor([self._examples[index].label for index in indices])
        return torch.stack([future.result() for future in futures]), labels

    def _enqueue(self) -> None:
        indices = next(self._batches, None)
        if indices is not None:
            self._waiting.append((indices, [self._pool.submit(self._prepare, index) for index in indices]))


def _draw_box(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], dice: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a part; all of the picture if ten draws do not fit into it."""
    for _ in range(_DRAWS):
        part = width * height * dice.uniform(*area)
        aspect = math.exp(dice.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(part * aspect)), round(math.sqrt(part / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = dice.integers(height - box_height + 1), dice.integers(width - box_width + 1)
            return int(top), int(left), box_height, box_width
    return 0, 0, height, width
