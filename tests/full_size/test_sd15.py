"""The `sd15` pack in full size: random weights in the real layout through the real loading code, and one image.

Needs about 4.5 GB on the disk of pytest's temporary folder, 7.5 GB of memory and a minute or two on two cores.
Not part of the normal suite: `make test-full-size`.
"""

import os
import resource
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from PIL import Image
from torchvision.models import ResNet50_Weights

from app.engine.clip.runner import ClipPreparation, ClipRunner
from app.engine.diffusion.runner import DiffusionPayload, DiffusionRunner
from app.engine.engine import Engine
from app.engine.resnet import BackboneRunner, ClassifierRunner, ClassifyPayload, FeaturePayload
from app.modelpacks.loading import DiffusionComponents, load_backbone, load_classifier, load_clip, load_diffusion
from app.modelpacks.pack import ModelPack, find_pack
from testing.fakes import FakeRunner
from testing.packs import write_pack
from testing.tiny import NOISE_SCHEDULER
from testing.waiting import PATIENCE_S

pytestmark = pytest.mark.full_size

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelPack]:
    models_dir = tmp_path_factory.mktemp("models")
    started_at = time.monotonic()
    write_pack(models_dir / "sd15")
    size = sum(path.stat().st_size for path in models_dir.rglob("*") if path.is_file())
    report(f"wrote {size / 1e9:.2f} GB of random weights", started_at)
    yield find_pack("sd15", models_dir)
    for path in models_dir.rglob("*.safetensors"):
        os.unlink(path)


def report(what: str, started_at: float) -> None:
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what}: {time.monotonic() - started_at:.1f} s, peak memory so far {peak_gb:.1f} GB")  # noqa: T201


def upstream(components: DiffusionComponents, payload: DiffusionPayload) -> np.ndarray:
    """The same image by `StableDiffusionPipeline` around the same models."""
    pipeline = StableDiffusionPipeline(
        vae=components.vae,
        text_encoder=components.text_encoder,
        tokenizer=components.tokenizer,
        unet=components.unet,
        scheduler=PNDMScheduler.from_config(NOISE_SCHEDULER),
        safety_checker=components.safety_checker,
        feature_extractor=components.feature_extractor,
    )
    image = pipeline(
        payload.prompt,
        num_inference_steps=payload.num_inference_steps,
        height=payload.height,
        width=payload.width,
        generator=torch.Generator().manual_seed(payload.seed),
    ).images[0]
    return np.asarray(image)


def announce(event: threading.Event) -> FakeRunner:
    event.set()
    return FakeRunner()


def test_the_full_size_models_load_and_make_an_image(sd15: ModelPack) -> None:
    started_at = time.monotonic()
    components = load_diffusion(sd15, CPU, torch.float32)
    report("loaded diffusion", started_at)
    assert sum(parameter.numel() for parameter in components.unet.parameters()) == 859_520_964
    assert len(components.tokenizer) == 49408
    assert components.safety_checker is not None

    started_at = time.monotonic()
    clip, classifier, backbone = load_clip(sd15, CPU), load_classifier(sd15, CPU), load_backbone(sd15, CPU)
    report("loaded CLIP and ResNets", started_at)
    assert classifier.classes == tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])

    payload = DiffusionPayload("a watercolor painting of a red fox", num_inference_steps=2, height=64, width=64)
    expected = upstream(components, payload)  # before a runner changes layers in place
    fields = {name: getattr(components, name) for name in components.__dataclass_fields__}
    engine = Engine()
    engine.add_model("diffusion", lambda: DiffusionRunner(**fields, device=CPU))
    engine.add_model("clip", lambda: ClipRunner(model=clip.model, device=CPU))
    engine.add_model("classifier", lambda: ClassifierRunner(model=classifier.model, device=CPU))
    engine.add_model("backbone", lambda: BackboneRunner(model=backbone.model, device=CPU))
    is_loaded = threading.Event()
    engine.add_model("last", lambda: announce(is_loaded))
    engine.start()
    assert is_loaded.wait(PATIENCE_S)
    try:
        started_at = time.monotonic()
        image = engine.submit("diffusion", payload).result()
        report("one image of 64x64 pixels in two steps", started_at)
        assert image.flagged is False
        assert image.pixels.std() > 1
        np.testing.assert_array_equal(image.pixels, expected)

        picture = Image.fromarray(image.pixels)
        scores = engine.submit(
            "clip", ClipPreparation(clip.processor, max_tokens=77)(picture, ("a fox", "a dog"))
        ).result()
        assert sum(scores.probabilities) == pytest.approx(1)
        probabilities = (
            engine.submit("classifier", ClassifyPayload(classifier.preprocess(picture))).result().probabilities
        )
        assert probabilities.shape == (1000,)
        features = engine.submit("backbone", FeaturePayload(backbone.preprocess(picture))).result()
        assert features.shape == (512,)
        assert np.isfinite(features).all()
    finally:
        engine.close()
    report("all", started_at)
