"""The optimizer steps of a fine-tuning, and its whole changing state as named tensors.

Knows no files and no pictures' paths. One thread uses a `Trainer`: in the API process, the engine's device thread.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from app.finetuning.errors import DamagedWeights, FineTuneDiverged
from app.finetuning.network import Classifier, freeze
from app.finetuning.precision import Precision, resolve_precision
from app.finetuning.settings import FineTuneSettings
from app.finetuning.tensor_files import Tensors

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."


class Trainer:
    """Trains a classifier's unfrozen parameters.

    Attributes:
        classifier: On the device, float32.
        num_steps: Optimizer steps taken over all epochs.
        lr: The head's learning rate of the last step.
    """

    def __init__(
        self, classifier: Classifier, settings: FineTuneSettings, *, steps_per_epoch: int, device: torch.device
    ) -> None:
        """Start with the classifier as it is.

        Raises:
            BadFineTune: The device lacks the precision, or the backbone's last block is not known.
        """
        # channels_last: a step of EfficientNet-Lite0's last block took 0.54 s of a CPU instead of 0.9 s.
        self.classifier = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.num_steps = 0
        self.lr = 0.0
        self._settings = settings
        self._steps_per_epoch = steps_per_epoch
        self._device = device
        self._trained = freeze(classifier, settings.mode)
        self._optimizer = _optimizer(self._trained, settings)
        self._precision = Precision(resolve_precision(settings.mixed_precision, device), device, self._optimizer)
        self._average: Tensors = {}
        if settings.ema_decay is not None:
            self._average = {name: parameter.detach().clone() for name, parameter in self._trained.items()}

    def train(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """Take one optimizer step.

        Shapes:
            pixels: (B, 3, H, W), float32.
            labels: (B,), int64.

        Returns:
            The mean loss, with label smoothing if set, and the number of right answers, both before the step.

        Raises:
            FineTuneDiverged: The loss is not finite.
        """
        self._set_lr()
        labels = labels.to(self._device)
        with torch.enable_grad():
            with self._precision.autocast():
                logits = self.classifier(self._to_device(pixels)).float()
            loss = functional.cross_entropy(logits, labels, label_smoothing=self._settings.label_smoothing)
            if not math.isfinite(value := loss.item()):
                raise FineTuneDiverged
            self._precision.descend(loss)
        self.num_steps += 1
        self._average_weights()
        return value, int((logits.argmax(dim=1) == labels).sum())

    @torch.no_grad()
    def predict(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K), float32, on the CPU, under the weights that would be kept."""
        logits: torch.Tensor = functional_call(self.classifier, self._average, (self._to_device(pixels),))
        return logits.float().cpu()

    def kept_weights(self) -> Tensors:
        """Return the trained tensors that a user gets, by their names in the classifier: averaged ones if there are."""
        kept = self._average or self._trained
        return {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}

    def check_finite(self) -> None:
        """Raise FineTuneDiverged if a trained weight is not finite."""
        if not all(bool(parameter.isfinite().all()) for parameter in self._trained.values()):
            raise FineTuneDiverged

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return all that changes in training: tensors by name, and plain numbers."""
        tensors = {f"{_MODEL}{name}": parameter.detach() for name, parameter in self._trained.items()}
        tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in self._average.items()}
        for name, parameter in self._trained.items():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"{_OPTIMIZER}{key}.{name}"] = torch.as_tensor(value)
        return tensors, {"num_steps": self.num_steps, "lr": self.lr, "scale": self._precision.scale}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """Continue from what `state` returned.

        Raises:
            DamagedWeights: Names or shapes are others.
        """
        try:
            for name, parameter in self._trained.items():
                _copy(tensors[f"{_MODEL}{name}"], parameter)
            for name, average in self._average.items():
                _copy(tensors[f"{_AVERAGE}{name}"], average)
            self._restore_optimizer(tensors)
            self.num_steps, self.lr = int(numbers["num_steps"]), float(numbers["lr"])
            self._precision.scale = dict(numbers["scale"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DamagedWeights from error

    def _restore_optimizer(self, tensors: Mapping[str, torch.Tensor]) -> None:
        names = {id(parameter): name for name, parameter in self._trained.items()}
        states: dict[str, dict[str, torch.Tensor]] = {}
        for full_name, tensor in tensors.items():
            if full_name.startswith(_OPTIMIZER):
                key, name = full_name.removeprefix(_OPTIMIZER).split(".", 1)
                states.setdefault(name, {})[key] = _laid_out_as(self._trained[name], tensor)
        saved = self._optimizer.state_dict()
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        saved["state"] = {
            index: states[names[id(parameter)]]
            for index, parameter in enumerate(parameters)
            if names[id(parameter)] in states
        }
        self._optimizer.load_state_dict(saved)

    def _to_device(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(self._device, memory_format=torch.channels_last)

    def _set_lr(self) -> None:
        factor = self._settings.lr_factor(self.num_steps, self._steps_per_epoch)
        self.lr = self._settings.lr * factor
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_lr"] * factor

    @torch.no_grad()
    def _average_weights(self) -> None:
        """Move the averages; the first steps move them further.

        Source:
            Warm-up of the decay as in timm `ModelEmaV3` and TensorFlow `ExponentialMovingAverage`.
        """
        if self._settings.ema_decay is None:
            return
        decay = min(self._settings.ema_decay, (1 + self.num_steps) / (10 + self.num_steps))
        for name, average in self._average.items():
            average.lerp_(self._trained[name], 1 - decay)


def _optimizer(trained: Mapping[str, nn.Parameter], settings: FineTuneSettings) -> torch.optim.Optimizer:
    """Build the optimizer: head and backbone with their learning rates, one-dimensional parameters without decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        groups.setdefault((name.startswith("fc."), parameter.ndim > 1), []).append(parameter)
    options = [
        {
            "params": parameters,
            "full_lr": settings.lr * (1.0 if is_head else settings.backbone_lr_factor),
            "weight_decay": settings.weight_decay if is_decayed else 0.0,
        }
        for (is_head, is_decayed), parameters in groups.items()
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(options, lr=settings.lr)
    return torch.optim.SGD(options, lr=settings.lr, momentum=settings.momentum)


def _laid_out_as(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor; one of the parameter's shape into its memory layout, so that the same kernels go over both."""
    if tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    if source.shape != target.shape:  # copy_ would broadcast
        raise ValueError("another shape")
    target.copy_(source)
