"""What a train job is compared with: the tutorial's loop, and a bare forward with scikit-learn.

Knows nothing of Foxhound but where `photo` lies. Blocking.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from app.modelpacks.photo import ensure_photo

BATCH = 32
HALF = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
PLAIN = transforms.Compose(
    [transforms.Resize(256, InterpolationMode.BICUBIC), transforms.CenterCrop(224), transforms.ToTensor(), HALF]
)
AUGMENTED = transforms.Compose(
    [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), HALF]
)


@dataclass(frozen=True)
class Photographs(Dataset[tuple[torch.Tensor, int]]):
    """Files with their classes, decoded and transformed when they are asked for."""

    files: Sequence[Path]
    labels: Sequence[int]
    transform: Any

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        """Return the pixels (3, 224, 224) and the class of a row."""
        return self.transform(Image.open(self.files[row]).convert("RGB")), self.labels[row]


def backbone(folder: Path) -> nn.Module:
    """Return the network of `photo` without its head, as timm builds it."""
    ensure_photo(folder)
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return model


def tutorial_epoch_s(folder: Path, train: Photographs, test: Photographs) -> float:
    """Return the seconds of one epoch of PyTorch's transfer learning tutorial, with its test.

    Source: its "ConvNet as fixed feature extractor": batches of 4, augmentation, the backbone's forward in every step.
    """
    model = nn.Sequential(backbone(folder), nn.Linear(1280, 2))
    for weights in model[0].parameters():
        weights.requires_grad = False
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.001, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    loaders = {
        "train": DataLoader(
            Photographs(train.files, train.labels, AUGMENTED), batch_size=4, shuffle=True, num_workers=2
        ),
        "test": DataLoader(test, batch_size=4, shuffle=False, num_workers=2),
    }
    began = time.perf_counter()
    for phase, loader in loaders.items():
        model.train(phase == "train")
        for pixels, labels in loader:
            with torch.set_grad_enabled(phase == "train"):
                loss = criterion(model(pixels), labels)
                if phase == "train":
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Bare:
    """The least that features and a head cost: seconds of each part, and the accuracy on the test.

    Attributes:
        images_per_s: Of the forward alone.
    """

    decode_s: float
    forward_s: float
    fit_s: float
    images_per_s: float
    accuracy: float


@torch.inference_mode()
def bare(folder: Path, train: Photographs, test: Photographs) -> Bare:
    """Decode all, then run the bare forward by 32, then fit scikit-learn's logistic regression."""
    model = backbone(folder).eval()
    began = time.perf_counter()
    pixels = torch.stack([photographs[row][0] for photographs in (train, test) for row in range(len(photographs))])
    decoded = time.perf_counter()
    features = np.concatenate([model(pixels[start : start + BATCH]).numpy() for start in range(0, len(pixels), BATCH)])
    forwarded = time.perf_counter()
    head = LogisticRegression(max_iter=1_000).fit(features[: len(train)], train.labels)
    fitted = time.perf_counter()
    accuracy = float(head.score(features[len(train) :], test.labels))
    forward_s = forwarded - decoded
    return Bare(decoded - began, forward_s, fitted - forwarded, len(pixels) / forward_s, accuracy)
