"""The LitServe peer: its documented way of batching, on the same weights and with the libraries' own preprocessing.

Run by the peer's own interpreter; knows nothing of this project. Texts that requests of one batch share are encoded
once, as a careful user would; nothing is kept between batches.
"""

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found, unused-ignore]
import torch
import torchvision.models
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import ResNet50_Weights
from transformers import CLIPModel, CLIPProcessor


def read_image(request: dict[str, Any]) -> Image.Image:
    """Decode the body's image."""
    return Image.open(io.BytesIO(base64.b64decode(request["image_b64"]))).convert("RGB")


class Classify(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """ResNet50 with its weights' own preprocessing."""

    folder: Path
    threads: int

    def setup(self, device: str) -> None:
        """Load the network."""
        torch.set_num_threads(self.threads)
        self.model = torchvision.models.resnet50(weights=None)
        self.model.load_state_dict(load_file(self.folder / "classifier" / "model.safetensors"), strict=False)
        self.model.eval()
        self.transform = ResNet50_Weights.IMAGENET1K_V2.transforms()
        self.names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        """Prepare one image."""
        pixels: torch.Tensor = self.transform(read_image(request))
        return pixels

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack the images."""
        return torch.stack(inputs)

    @torch.inference_mode()
    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Classify a batch, or one image where batching is off."""
        images = x if x.ndim == 4 else x[None]
        probabilities: torch.Tensor = self.model(images).softmax(dim=1)
        return probabilities

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """Hand each request its row."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """Answer the five best."""
        best = output.flatten().topk(5)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {"predictions": [{"label": self.names[i], "probability": p} for i, p in pairs]}


class ClipScore(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """CLIP, image and texts of a batch in one forward."""

    folder: Path
    threads: int

    def setup(self, device: str) -> None:
        """Load model and processor."""
        torch.set_num_threads(self.threads)
        self.model = CLIPModel.from_pretrained(self.folder / "clip").eval()
        self.processor = CLIPProcessor.from_pretrained(self.folder / "clip")

    def decode_request(self, request: dict[str, Any]) -> tuple[torch.Tensor, list[str]]:
        """Prepare one image."""
        pixels = self.processor.image_processor(images=read_image(request), return_tensors="pt").pixel_values
        return pixels, request["labels"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Leave it to `predict`."""
        return inputs

    @torch.inference_mode()
    def predict(self, x: Any) -> list[torch.Tensor]:
        """Score a batch, or one image where batching is off."""
        asked = x if isinstance(x, list) else [x]
        places = {text: i for i, text in enumerate(dict.fromkeys(text for _, texts in asked for text in texts))}
        tokens = self.processor.tokenizer(list(places), padding=True, truncation=True, return_tensors="pt")
        logits = self.model(pixel_values=torch.cat([pixels for pixels, _ in asked]), **tokens).logits_per_image
        return [logits[i, [places[text] for text in texts]] for i, (_, texts) in enumerate(asked)]

    def unbatch(self, output: list[torch.Tensor]) -> list[torch.Tensor]:
        """Hand each request its row."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Answer logits and probabilities."""
        logits = output[0] if isinstance(output, list) else output
        return {"logits": logits.tolist(), "probabilities": logits.softmax(dim=0).tolist()}


def main() -> None:
    """Serve one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint", choices=["classify", "clip-score"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True, help="CPU threads of each worker")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--max-batch-size", type=int, required=True)
    parser.add_argument("--batch-timeout", type=float, required=True)
    args = parser.parse_args()
    kind = Classify if args.endpoint == "classify" else ClipScore
    api: Any = kind(max_batch_size=args.max_batch_size, batch_timeout=args.batch_timeout, api_path=f"/{args.endpoint}")
    # On the object, which is pickled for the worker process; the class is imported anew there.
    api.folder, api.threads = args.folder, args.threads
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=args.workers, timeout=False)
    server.run(host="127.0.0.1", port=args.port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
