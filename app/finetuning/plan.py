"""What one fine-tuning consists of: backbone, pictures, first head and settings; written beside its checkpoints.

Plain values; imports neither torch nor timm, because the worker writes the plan and the API process reads it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.finetuning.errors import DamagedWeights
from app.finetuning.settings import FineTuneSettings, check_examples


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A network without its head.

    Attributes:
        library: `timm`, or `torchvision` for its ResNets.
        architecture: The name that the library's constructor takes.
        options: Further arguments of timm's constructor.
    """

    library: Literal["timm", "torchvision"]
    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """A picture and its class.

    Attributes:
        path: Its file.
        label: 0 ... K - 1.
        key: What identifies the content, such as the file's SHA-256; part of the plan's fingerprint.
    """

    path: Path
    label: int
    key: str


@dataclass(frozen=True, slots=True)
class FineTunePlan:
    """Everything that determines a fine-tuning.

    Attributes:
        backbone: The network.
        weights: File of its weights, safetensors; tensors of its old head in it are ignored.
        weights_sha256: Identifies them.
        preprocessing: What `Preprocessing.from_config` reads.
        classes: The names of the K classes, by label.
        train: Pictures to train on, in any fixed order.
        validation: Pictures that are measured after each epoch; may be empty.
        settings: How it is trained.
        head: Safetensors file of `fc.weight` (K, D) and `fc.bias` (K,), such as a linear probe's on the same backbone;
            None: torch's own initialisation of a linear layer under the seed.
        head_sha256: Identifies it.
    """

    backbone: BackboneSpec
    weights: Path
    weights_sha256: str
    preprocessing: Mapping[str, Any]
    classes: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    settings: FineTuneSettings
    head: Path | None = None
    head_sha256: str = ""

    @property
    def num_train_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return _num_batches(self.train, self.settings.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch as the engine counts them: optimizer steps and validation batches."""
        return self.num_train_steps + _num_batches(self.validation, self.settings.batch_size)

    @property
    def fingerprint(self) -> str:
        """A hash of all that determines the weights; paths do not."""
        facts = _to_json(self)
        for name in ("weights", "head"):
            del facts[name]
        facts["train"], facts["validation"] = (
            [[example.key, example.label] for example in examples] for examples in (self.train, self.validation)
        )
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            BadFineTune: See `check_examples`.
        """
        train, validation = ([example.label for example in part] for part in (self.train, self.validation))
        check_examples(len(self.classes), train, validation, self.settings)

    def to_bytes(self) -> bytes:
        """Serialize the plan as JSON."""
        return json.dumps(_to_json(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "FineTunePlan":
        """Read what `to_bytes` wrote.

        Raises:
            DamagedWeights: It is something else.
        """
        try:
            values = json.loads(data)
            settings, head = FineTuneSettings.from_json(values.pop("settings")), values.pop("head")
            return cls(
                backbone=BackboneSpec(**values.pop("backbone")),
                weights=Path(values.pop("weights")),
                classes=tuple(values.pop("classes")),
                train=_examples(values.pop("train")),
                validation=_examples(values.pop("validation")),
                settings=settings,
                head=None if head is None else Path(head),
                **values,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedWeights from error


def _num_batches(examples: Sequence[Example], batch_size: int) -> int:
    return -(-len(examples) // batch_size)


def _to_json(plan: FineTunePlan) -> dict[str, Any]:
    values = asdict(plan)
    values["weights"] = str(plan.weights)
    values["head"] = None if plan.head is None else str(plan.head)
    for name, examples in (("train", plan.train), ("validation", plan.validation)):
        values[name] = [[str(example.path), example.label, example.key] for example in examples]
    return values


def _examples(rows: Sequence[Any]) -> tuple[Example, ...]:
    return tuple(Example(Path(path), int(label), str(key)) for path, label, key in rows)
