"""Mixed precision and gradient scaling by accelerate, for one device.

accelerate keeps its precision in state that all its objects of a process share. The engine's device thread alone uses
this module, and every forward makes its own precision the shared one first, so that two fine-tunings may differ.
"""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from app.finetuning.errors import BadFineTune
from app.finetuning.settings import PrecisionName

Resolved = Literal["no", "bf16", "fp16"]


def resolve_precision(name: PrecisionName, device: torch.device) -> Resolved:
    """Choose the precision of a device.

    Raises:
        BadFineTune: The device does not compute in the one asked for.
    """
    if device.type == "cpu":
        if name in ("no", "auto"):
            return "no"
        if name == "fp16" or not _cpu_has_bf16():
            raise BadFineTune("This processor does not compute in the precision asked for. Use `no` or `auto`.")
        return "bf16"
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bf16" if has_bf16 else "fp16"
    if name == "bf16" and not has_bf16:
        raise BadFineTune("This GPU does not compute in bf16. Use `fp16` or `auto`.")
    return name


class Precision:
    """One fine-tuning's autocast and gradient scaler."""

    def __init__(self, name: Resolved, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        """Use a resolved precision for the steps of an optimizer."""
        self._name = name
        self._is_cpu = device.type == "cpu"
        self._accelerator = _accelerator(name, is_cpu=self._is_cpu)
        self._optimizer = self._accelerator.prepare_optimizer(optimizer, device_placement=False)

    @property
    def scale(self) -> dict[str, Any]:
        """The gradient scaler's state, plain numbers; empty where none is needed."""
        scaler = self._accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    @scale.setter
    def scale(self, state: dict[str, Any]) -> None:
        if self._accelerator.scaler is not None and state:
            self._accelerator.scaler.load_state_dict(state)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward."""
        self._share()
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def descend(self, loss: torch.Tensor) -> None:
        """Take one optimizer step; with fp16, one whose gradients overflow is left out and the scale is halved."""
        self._optimizer.zero_grad()
        self._accelerator.backward(loss)
        self._optimizer.step()

    def _share(self) -> None:
        """Make this precision accelerate's shared one, if another fine-tuning changed it."""
        if self._accelerator.mixed_precision != self._name:
            _accelerator(self._name, is_cpu=self._is_cpu)


def _accelerator(name: Resolved, *, is_cpu: bool) -> Accelerator:
    """Build an accelerator and make its precision the shared one; those built before stay usable."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=name, cpu=is_cpu)


def _cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bfloat16; others emulate it, slower than float32."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
