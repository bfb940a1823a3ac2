"""How forwards of the UNet are taken: allowed numbers of rows, padding, batch invariance, compiling and recording.

Uses no images and no queues. The loader thread chooses the options once, while the model loads.
"""

from bisect import bisect_left
from dataclasses import dataclass

import torch

from app.engine.diffusion.texts.kept_texts import MAX_TEXT_BYTES
from app.engine.kernels.compile import Compiler, compile_forward
from app.engine.kernels.cuda import CudaRecorder, Recorder
from app.engine.request import MIN_ROWS

# Most rows of one forward.
MAX_ROWS = 32

# Every number of rows, for a device on which the number does not change a row's result.
ANY_ROWS = tuple(range(MIN_ROWS, MAX_ROWS + 1))

# A GPU selects kernels, and records graphs, for each number of rows separately, so it gets few numbers.
ROW_BUCKETS = (2, 4, 8, 12, 16, 24, MAX_ROWS)

# The number of rows of every forward of a GPU whose results must not depend on the number.
GPU_ROWS = 8


@dataclass(frozen=True, slots=True)
class RowPadding:
    """Distributes requested rows over forwards of allowed sizes.

    Attributes:
        sizes: The numbers of rows that a forward may have, >= 1, ascending. More rows than the last are split; a
            number in between is padded to the next.
    """

    sizes: tuple[int, ...]

    @property
    def most(self) -> int:
        """The most rows of one forward."""
        return self.sizes[-1]

    def size(self, rows: int) -> int:
        """Return the rows of a forward after padding, for 1 ... `most` requested rows."""
        return self.sizes[bisect_left(self.sizes, rows)]

    def forwards(self, rows: int) -> list[int]:
        """Return the rows of each forward after padding, in order, for >= 1 requested rows."""
        full, rest = divmod(rows, self.most)
        return [self.most] * full + ([self.size(rest)] if rest else [])

    def blocks(self, rows: int) -> list[list[int]]:
        """Return the row indices of each forward, in order; only the last is padded, with copies of row 0.

        The concatenated results of all forwards begin with those of the requested rows.
        """
        blocks = [list(range(start, min(start + self.most, rows))) for start in range(0, rows, self.most)]
        blocks[-1] += [0] * (self.size(len(blocks[-1])) - len(blocks[-1]))
        return blocks


@dataclass(frozen=True, slots=True)
class DenoisingOptions:
    """How a device takes its forwards.

    Attributes:
        sizes: The numbers of rows that a forward may have, ascending.
        batch_invariant: Whether an image's bytes must not depend on the other images of its batch.
        record: Records forwards and replays them; None: forwards run without recording.
        compiler: Compiles the UNet's forward and the decoding; None: they run uncompiled.
        keeps: Whether what depends on prompt or timestep alone is computed once, where a CPU's layers allow it.
        kept_text_bytes: Most memory of the prompts' part of it, >= 0, and once more of their rows in forwards.
    """

    sizes: tuple[int, ...] = ANY_ROWS
    batch_invariant: bool = True
    record: Recorder | None = None
    compiler: Compiler | None = None
    keeps: bool = True
    kept_text_bytes: int = MAX_TEXT_BYTES

    @property
    def needs_probe(self) -> bool:
        """Whether batch invariance has to be tested for each size of latents."""
        return self.batch_invariant and len(self.sizes) > 1

    @property
    def needs_warmup(self) -> bool:
        """Whether the first forwards compile or record, which belongs to loading the model."""
        return self.record is not None or self.compiler is not None


def options_for(device: torch.device, *, deterministic: bool, graphs: bool, compiles: bool = False) -> DenoisingOptions:
    """Choose the options for a device.

    Args:
        device: The device of the UNet.
        deterministic: Whether an image's bytes must not depend on the other images of its batch. A GPU selects other
            kernels for other numbers of rows, so there every forward then has the same number.
        graphs: Whether a GPU records its forwards as CUDA graphs; without effect on a CPU.
        compiles: Whether a GPU's models are compiled; without effect on a CPU.
    """
    if device.type != "cuda":
        return DenoisingOptions(batch_invariant=deterministic)
    return DenoisingOptions(
        sizes=(GPU_ROWS,) if deterministic else ROW_BUCKETS,
        batch_invariant=deterministic,
        record=CudaRecorder(device) if graphs else None,
        compiler=compile_forward if compiles else None,
    )
