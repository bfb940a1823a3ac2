"""One row of the table: a probe on features, or a fine-tuning, as an accuracy and the seconds that it took."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from app.finetuning.checkpoints import load_fine_tuned, load_kept, save_checkpoint, save_fine_tuned
from app.finetuning.network import load_backbone
from app.finetuning.plan import FineTunePlan
from app.finetuning.session import FineTune
from app.finetuning.settings import FineTuneSettings
from app.modelpacks.preprocessing import Preprocessing
from app.training.linear_probe import fit, predict, save_probe
from bench.finetune.material import CLASSES, PREPROCESSING, SPEC, Photographs, decode

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """A result on the test photographs."""

    what: str
    seed: int
    num_right: int
    num_tested: int
    train_loss: float | None
    seconds: float
    cpu_seconds: float
    ms_per_step: float | None = None

    def to_markdown(self) -> str:
        """Return the table's row."""
        low, high = wilson(self.num_right, self.num_tested)
        cells = [
            self.what,
            str(self.seed),
            f"{self.num_right}/{self.num_tested}",
            f"{self.num_right / self.num_tested:.3f}",
            f"{low:.3f} to {high:.3f}",
            "" if self.train_loss is None else f"{self.train_loss:.3f}",
            f"{self.seconds:.1f}",
            f"{self.cpu_seconds:.1f}",
            "" if self.ms_per_step is None else f"{self.ms_per_step:.0f}",
        ]
        return f"| {' | '.join(cells)} |"


class Watch:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._started = (time.perf_counter(), time.process_time())

    @property
    def seconds(self) -> tuple[float, float]:
        """Seconds of wall time and of the CPU."""
        return time.perf_counter() - self._started[0], time.process_time() - self._started[1]


def wilson(num_right: int, num: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    share = num_right / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return middle - half, middle + half


def probes(weights: Path, train: Photographs, test: Photographs, *, seed: int, head: Path) -> list[Row]:
    """Fit the product's SGD probe and scikit-learn's logistic regression; writes the first one's head to a file."""
    watch = Watch()
    train_x, train_y = _features(weights, train)
    features_s = watch.seconds
    test_x, test_y = _features(weights, test)
    watch = Watch()
    fitted = fit(train_x, train_y, None, None, num_classes=len(CLASSES), seed=seed)
    sgd_s = _sum(features_s, watch.seconds)
    head.write_bytes(save_probe(fitted.probe, classes=CLASSES, backbone="bench"))
    right = int((predict(fitted.probe, test_x).argmax(axis=1) == test_y).sum())
    rows = [Row("probe, SGD defaults", seed, right, len(test), fitted.epochs[-1].train_loss, *sgd_s)]
    watch = Watch()
    regression = LogisticRegression(C=1.0, max_iter=1000).fit(train_x, train_y)
    lbfgs_s = _sum(features_s, watch.seconds)
    right = int((regression.predict(test_x) == test_y).sum())
    return [*rows, Row("probe, scikit-learn LR, C = 1", seed, right, len(test), None, *lbfgs_s)]


def fine_tuned(
    folder: Path, weights: Path, train: Photographs, test: Photographs, settings: dict[str, Any], head: Path | None
) -> Row:
    """Fine-tune with a checkpoint after every epoch, write the model, load it, and test that."""
    plan = FineTunePlan(
        SPEC, weights, "bench", PREPROCESSING, CLASSES, tuple(train), (), FineTuneSettings(**settings), head, "bench"
    )
    watch = Watch()
    with ThreadPoolExecutor(2) as pool:
        session = FineTune(plan, device=CPU, decode=decode, pool=pool)
        step_s = _run(session, folder)
    classifier, epoch = load_kept(folder, plan)
    file = save_fine_tuned(folder / "model.safetensors", classifier, plan, epoch)
    seconds = watch.seconds
    loss = session.progress.epochs[-1].train_loss
    num_right = _test(file.path, test)
    return Row(
        f"fine-tune, {plan.settings.mode}", settings["seed"], num_right, len(test), loss, *seconds, step_s * 1000
    )


def _sum(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] + second[0], first[1] + second[1]


def _run(session: FineTune, folder: Path) -> float:
    """Train all epochs; returns the median seconds of a step."""
    seconds = []
    for epoch in range(1, session.plan.settings.epochs + 1):
        session.begin_epoch(epoch)
        while not session.is_epoch_done:
            started_s = time.perf_counter()
            session.step()
            seconds.append(time.perf_counter() - started_s)
        session.end_epoch()
        save_checkpoint(folder, session)
    return float(np.median(seconds))


@torch.inference_mode()
def _test(path: Path, test: Photographs) -> int:
    model = load_fine_tuned(path)
    transform = model.preprocessing.transform()
    pixels = [transform(decode(photograph.path.read_bytes())) for photograph in test]
    right = [
        int(model.head(model.backbone(one.unsqueeze(0))).argmax()) == photograph.label
        for one, photograph in zip(pixels, test, strict=True)
    ]
    return sum(right)


@torch.inference_mode()
def _features(weights: Path, pictures: Photographs) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, D), float32, and labels (N,)."""
    backbone, transform = load_backbone(SPEC, weights), Preprocessing.from_config(PREPROCESSING).transform()
    pixels = [transform(decode(picture.path.read_bytes())) for picture in pictures]
    rows = [backbone(torch.stack(pixels[start : start + 16])).numpy() for start in range(0, len(pixels), 16)]
    return np.concatenate(rows), np.array([picture.label for picture in pictures])
