"""The protocol between a node's worker and its engine: routes, headers and the coding of bodies, for both halves.

HTTP over the node's Unix socket. `app/node/client.py` is the worker's half, `app/api/internal.py` the engine's. Both
are of one release, except while a node is upgraded: a field added here needs a default. Imports no HTTP framework and
no models; pure functions, any thread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from app.errors import Malformed
from app.image_spec import ImageInfo, ImageSpec, RenderedImage

RENDER: Final = "/render"
FEATURES: Final = "/features"
BACKBONE: Final = "/backbone"

# Bytes of JSON before the image's own in the body of a rendered image. The scores of many labels are more than a header
# may hold.
INFO_BYTES: Final = "X-Foxhound-Info-Bytes"


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One image that the worker asks for.

    Attributes:
        spec: What to draw.
        labels: Texts to score the image against; None: no scores.
        background: Whether interactive requests go first.
    """

    spec: ImageSpec
    labels: Sequence[str] | None
    background: bool

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain JSON values."""
        labels = list(self.labels) if self.labels else None
        return {"spec": self.spec.to_json(), "labels": labels, "background": self.background}

    @classmethod
    def from_json(cls, values: Any) -> "RenderRequest":
        """Return the request that JSON values hold.

        Raises:
            Malformed: They are no such request.
        """
        try:
            return cls(ImageSpec.from_json(values["spec"]), values["labels"], values["background"])
        except (KeyError, TypeError):
            raise Malformed("The body is not a request for an image. Run API and worker of one release.") from None


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What features depend on besides the image."""

    architecture: str
    weights_sha256: str
    preprocessing: str

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return asdict(self)


def encode_image(image: RenderedImage) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that carry a rendered image."""
    info = json.dumps(image.info.to_json()).encode()
    return info + image.data, {INFO_BYTES: str(len(info))}


def decode_image(body: bytes, headers: Mapping[str, str]) -> RenderedImage:
    """Return the image that `encode_image` coded; `headers` must find names in any case."""
    info_bytes = int(headers[INFO_BYTES])
    return RenderedImage(body[info_bytes:], ImageInfo.from_json(json.loads(body[:info_bytes])))


def encode_features(features: np.ndarray) -> bytes:
    """Return the body that carries features, (D,), as little-endian float32."""
    return features.astype("<f4").tobytes()


def decode_features(body: bytes) -> np.ndarray:
    """Return the features that `encode_features` coded, (D,) float32."""
    return np.frombuffer(body, dtype="<f4").astype(np.float32)
