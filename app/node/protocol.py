"""The protocol between a node's worker and its engine: routes, headers and the coding of bodies, for both halves.

HTTP over the node's Unix socket. `app/node/client.py` is the worker's half, `app/api/serving/internal.py` the engine's.
Both are of one release, except while a node is upgraded within one revision of the database: a field added here needs a
default, and a worker whose API process lacks a route waits. Imports no HTTP framework and no models; pure functions,
any thread.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from app.errors import Malformed
from app.image_spec import ImageInfo, ImageSpec, RenderedImage

RENDER: Final = "/render"
TEXTS: Final = "/texts"
FEATURE_BATCH: Final = "/feature-batch"
BACKBONE: Final = "/backbone"
FINE_TUNE_NETWORK: Final = "/fine-tune-network"
FINE_TUNE_EPOCH: Final = "/fine-tune-epoch"
FINE_TUNE_MODEL: Final = "/fine-tune-model"

# Bytes of JSON before the image's own in the body of a rendered image. The scores of many labels are more than a header
# may hold.
INFO_BYTES: Final = "X-Foxhound-Info-Bytes"


# Of whom a request's work is, in a header of every request: callers share the engine. Workers of older releases leave
# it out.
CALLER: Final = "X-Foxhound-Caller"


@dataclass(frozen=True, slots=True)
class PreviewsOf:
    """Whose viewers previews are for.

    Attributes:
        job_id: The job that the image belongs to.
        image: Which of the job's images, from 0.
        every: Which steps have one: every n-th, >= 1.
    """

    job_id: str
    image: int
    every: int


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One image that the worker asks for.

    Attributes:
        spec: What to draw.
        labels: Texts to score the image against; None: no scores.
        background: Whether interactive requests go first.
        pictures: The PNG files of the pictures that the spec names, by the names of its fields.
        previews: Whom previews are shown; None: there are none.
        scores_prompt: Whether it is scored against its prompt without labels too.
        job_id: Whose viewers are shown how many requests go before the image; None: nobody's.
    """

    spec: ImageSpec
    labels: Sequence[str] | None
    background: bool
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    previews: PreviewsOf | None = None
    scores_prompt: bool = False
    job_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain JSON values."""
        labels = list(self.labels) if self.labels else None
        previews = None if self.previews is None else asdict(self.previews)
        pictures = {name: base64.b64encode(file).decode() for name, file in self.pictures.items()}
        asked = {
            "spec": self.spec.to_json(),
            "labels": labels,
            "background": self.background,
            "previews": previews,
            "scores_prompt": self.scores_prompt,
            "job_id": self.job_id,
        }
        return {**asked, "pictures": pictures} if pictures else asked

    @classmethod
    def from_json(cls, values: Any) -> "RenderRequest":
        """Return the request that JSON values hold.

        Raises:
            Malformed: They are no such request.
        """
        try:
            pictures = {name: base64.b64decode(file) for name, file in values.get("pictures", {}).items()}
            previews = values.get("previews")
            return cls(
                ImageSpec.from_json(values["spec"]),
                values["labels"],
                values["background"],
                pictures,
                None if previews is None else PreviewsOf(**previews),
                values.get("scores_prompt", False),
                values.get("job_id"),
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise Malformed("The body is not a request for an image. Run API and worker of one release.") from None


# The backbone of the pack, by its name in requests.
PACK_BACKBONE: Final = "resnet18"

# Before a model's id: the name of the backbone that the model was fine-tuned with.
FINE_TUNED: Final = "model:"

# The finished model in the folder of a job's checkpoints.
FINE_TUNED_FILE: Final = "model.safetensors"

# Largest body of a batch of images; a single larger image is sent alone.
BATCH_BYTES: Final = 32_000_000


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What features depend on besides the image; also the `backbone` of a trained model's lineage.

    Attributes:
        preprocessing: The settings by name. A text in records of releases before 0.3, which had one backbone.
        device: `cpu` or `cuda`.
        dtype: Number format of the forward.
        torch: Version of the library.
    """

    architecture: str
    weights_sha256: str
    preprocessing: Any
    name: str = PACK_BACKBONE
    device: str = "cpu"
    dtype: str = "float32"
    torch: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Images whose features the worker asks for, each in several views.

    Attributes:
        backbone: Its name.
        weights_sha256: The weights that must be loaded.
        views: Names of views, see `app/storage/features.py`; >= 1.
        images: Image files.
    """

    backbone: str
    weights_sha256: str
    views: Sequence[str]
    images: Sequence[bytes] = field(repr=False)

    def encode(self) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers that carry the batch: JSON with the sizes, then the files in order."""
        sizes = [len(image) for image in self.images]
        head = {"backbone": self.backbone, "weights_sha256": self.weights_sha256, "views": list(self.views)}
        info = json.dumps({**head, "sizes": sizes}).encode()
        return b"".join([info, *self.images]), {INFO_BYTES: str(len(info))}

    @classmethod
    def decode(cls, body: bytes, headers: Mapping[str, str]) -> "FeatureBatch":
        """Return the batch that `encode` coded; `headers` must find names in any case.

        Raises:
            Malformed: The body is no such batch.
        """
        try:
            start = int(headers[INFO_BYTES])
            head = json.loads(body[:start])
            images = []
            for size in head["sizes"]:
                images.append(body[start : start + size])
                start += size
            if start != len(body):
                raise ValueError("The sizes do not fit the body.")
            return cls(str(head["backbone"]), str(head["weights_sha256"]), [str(one) for one in head["views"]], images)
        except (KeyError, TypeError, ValueError):
            raise Malformed("The body is not a batch of images. Run API and worker of one release.") from None


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """CLIP's embeddings of texts.

    Attributes:
        embeddings: (T, D), float32, of length 1, in the order of the texts.
        logit_scale: The model's scale of cosines, as a factor.
    """

    embeddings: np.ndarray
    logit_scale: float

    def to_json(self) -> dict[str, Any]:
        """Return the embeddings as plain JSON values."""
        return {"embeddings": self.embeddings.tolist(), "logit_scale": self.logit_scale}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TextEmbeddings":
        """Return what `to_json` coded."""
        return cls(np.array(values["embeddings"], np.float32), float(values["logit_scale"]))


def encode_image(image: RenderedImage) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that carry a rendered image."""
    info = json.dumps(image.info.to_json()).encode()
    return info + image.data, {INFO_BYTES: str(len(info))}


def decode_image(body: bytes, headers: Mapping[str, str]) -> RenderedImage:
    """Return the image that `encode_image` coded; `headers` must find names in any case."""
    info_bytes = int(headers[INFO_BYTES])
    return RenderedImage(body[info_bytes:], ImageInfo.from_json(json.loads(body[:info_bytes])))


def encode_features(features: np.ndarray) -> bytes:
    """Return the body that carries features of any shape, as little-endian float32 in C order."""
    return features.astype("<f4").tobytes()


def decode_features(body: bytes) -> np.ndarray:
    """Return the features that `encode_features` coded, as (N,) float32."""
    return np.frombuffer(body, dtype="<f4").astype(np.float32)


@dataclass(frozen=True, slots=True)
class FineTuneAsked:
    """A step of a job's fine-tuning that the worker asks for; the plan lies in the job's folder of checkpoints.

    Attributes:
        job_id: The job.
        backbone: The name of the backbone that is fine-tuned.
        epoch: Counted from 1; 0 for the finished model.
        examples: Pictures whose probabilities are wanted of the finished model: path below the data folder, label, key.
    """

    job_id: str
    backbone: str
    epoch: int = 0
    examples: Sequence[tuple[str, int, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "FineTuneAsked":
        """Return the request that JSON values hold.

        Raises:
            Malformed: They are no such request.
        """
        try:
            examples = [(str(path), int(label), str(key)) for path, label, key in values["examples"]]
            return cls(str(values["job_id"]), str(values["backbone"]), int(values["epoch"]), examples)
        except (KeyError, TypeError, ValueError):
            raise Malformed("The body asks for no fine-tuning. Run API and worker of one release.") from None


@dataclass(frozen=True, slots=True)
class FineTunedFile:
    """A finished model: its file, and what it says about the pictures that were asked about.

    Attributes:
        sha256: Of the file.
        num_bytes: Its size.
        probabilities: (N, K), float32, in the order of the examples.
    """

    sha256: str
    num_bytes: int
    probabilities: np.ndarray

    def encode(self) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers that carry it."""
        facts = {"sha256": self.sha256, "num_bytes": self.num_bytes, "shape": list(self.probabilities.shape)}
        info = json.dumps(facts).encode()
        return info + encode_features(self.probabilities), {INFO_BYTES: str(len(info))}

    @classmethod
    def decode(cls, body: bytes, headers: Mapping[str, str]) -> "FineTunedFile":
        """Return what `encode` coded; `headers` must find names in any case."""
        start = int(headers[INFO_BYTES])
        facts = json.loads(body[:start])
        return cls(facts["sha256"], facts["num_bytes"], decode_features(body[start:]).reshape(facts["shape"]))
