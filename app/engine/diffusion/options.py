"""How forwards of the UNet are taken: by which numbers of rows, with which promise, compiled and recorded or not.

Knows nothing of images and queues. Chosen once, while the model loads.
"""

from dataclasses import dataclass

import torch

from app.engine.diffusion.calibration import ANY_ROWS, ROW_BUCKETS
from app.engine.diffusion.invariance import FALLBACK_ROWS
from app.engine.kernels.compile import Compiler, compile_forward
from app.engine.kernels.cuda import CudaRecorder, Recorder


@dataclass(frozen=True, slots=True)
class DenoisingOptions:
    """How a device takes its forwards.

    Attributes:
        sizes: The numbers of rows a forward may have, ascending.
        same_bytes: An image's bytes must not depend on its company.
        record: Repeats forwards from recordings; None: they run one by one.
        compiler: Fuses what a forward is made of, and a decoding; None: they run as they are.
    """

    sizes: tuple[int, ...] = ANY_ROWS
    same_bytes: bool = True
    record: Recorder | None = None
    compiler: Compiler | None = None

    @property
    def must_look(self) -> bool:
        """Whether each size of latents has to be looked at before bytes can be promised."""
        return self.same_bytes and len(self.sizes) > 1

    @property
    def must_prepare(self) -> bool:
        """Whether the first forwards take so long that they belong to loading the model."""
        return self.record is not None or self.compiler is not None


def options_for(device: torch.device, *, deterministic: bool, graphs: bool, compiles: bool = False) -> DenoisingOptions:
    """Choose what suits the device.

    Args:
        device: Where the UNet is.
        deterministic: Whether an image's bytes must not depend on its company. A GPU takes other kernels for other
            numbers of rows, so there every forward then has the same number.
        graphs: Whether a GPU records its forwards; a CPU has nothing to record.
        compiles: Whether a GPU's models are compiled; a CPU's are not.
    """
    if device.type != "cuda":
        return DenoisingOptions(same_bytes=deterministic)
    return DenoisingOptions(
        sizes=(FALLBACK_ROWS,) if deterministic else ROW_BUCKETS,
        same_bytes=deterministic,
        record=CudaRecorder(device) if graphs else None,
        compiler=compile_forward if compiles else None,
    )
