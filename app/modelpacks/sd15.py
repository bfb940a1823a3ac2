"""The `sd15` pack: its properties, and the pinned source of each file.

Constants only; imports nothing of the application. `fetch.py` downloads the files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

TORCHVISION_URL = "https://download.pytorch.org/models"


@dataclass(frozen=True, slots=True)
class HubSource:
    """Files of one hub repository at one commit.

    Attributes:
        part: The pack's part that gets the files.
        revision: The commit; the hub lists size and hash of every file in it.
        files: Patterns of paths in the repository, the same below the part; each must match a file.
        pickles: Safetensors file to the pickle from which it is converted, where the commit lacks the former.
    """

    part: str
    repo_id: str
    revision: str
    files: tuple[str, ...]
    pickles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TorchvisionSource:
    """One of torchvision's state dicts.

    Attributes:
        part: The pack's part that it becomes.
        file_name: Ends in the first digits of its SHA-256, by torchvision's convention.
        config: The part's `config.json`.
    """

    part: str
    file_name: str
    config: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PackSources:
    """All sources of a pack.

    Attributes:
        facts: The manifest without its list of files.
    """

    facts: Mapping[str, object]
    hub: tuple[HubSource, ...]
    torchvision: tuple[TorchvisionSource, ...]


SD15_REVISION = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"

SD15_FACTS: Mapping[str, object] = {
    "name": "sd15",
    "revision": SD15_REVISION,
    "licence": "CreativeML OpenRAIL-M (Stable Diffusion v1.5), MIT (CLIP), BSD-3-Clause (torchvision)",
    "native_size": 512,
    "min_side": 64,
    "max_side": 1024,
    "default_noise_scheduler": "pndm",
}

SD15_SOURCES = PackSources(
    facts=SD15_FACTS,
    hub=(
        HubSource(
            part="diffusion",
            repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
            revision=SD15_REVISION,
            files=(
                "model_index.json",
                "*/config.json",
                "feature_extractor/*.json",
                "scheduler/*.json",
                "tokenizer/*",
                "safety_checker/model.fp16.safetensors",
                "text_encoder/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ),
        ),
        HubSource(
            part="clip",
            repo_id="openai/clip-vit-base-patch32",
            revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
            files=("*.json", "merges.txt", "model.safetensors"),
            # this commit has the weights as a pickle only
            pickles={"model.safetensors": "pytorch_model.bin"},
        ),
    ),
    torchvision=(
        TorchvisionSource(
            part="classifier",
            file_name="resnet50-11ad3fa6.pth",
            config={"architecture": "resnet50", "classes": {"weights": "ResNet50_Weights.IMAGENET1K_V2"}},
        ),
        TorchvisionSource(
            part="backbone",
            file_name="resnet18-f37072fd.pth",
            config={"architecture": "resnet18", "classes": {"weights": "ResNet18_Weights.IMAGENET1K_V1"}},
        ),
    ),
)
