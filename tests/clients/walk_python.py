"""What a user does with the client that openapi-python-client generates: `walk_python.py BASE_URL IMAGE...`.

Prints one JSON object; the test compares it. mypy --strict checks it: no cast, no `Any` of the client's.
"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
from foxhound_generated import AuthenticatedClient
from foxhound_generated.api.datasets import create_dataset, upload_dataset_images
from foxhound_generated.api.images import generate_image, generate_images
from foxhound_generated.api.jobs import follow_job, get_job
from foxhound_generated.api.judging import classify_image_files, score_image_files
from foxhound_generated.api.training import create_train_job, get_model
from foxhound_generated.models import (
    ClassificationRead,
    ClassifyForm,
    ClipScoreForm,
    ClipScoreRead,
    DatasetClass,
    DatasetCreate,
    DatasetPlan,
    DatasetRead,
    GenerateImageRequest,
    GenerateJob,
    GenerateRequest,
    GenerationRead,
    GuidanceRange,
    ImageFormat,
    ModelRead,
    Problem,
    RecipeSettings,
    Split,
    TrainJob,
    TrainJobCreate,
    TrainJobRead,
    UploadImagesForm,
    UploadRead,
)
from foxhound_generated.types import File

BASE_URL, *NAMES = sys.argv[1:]
# A node without keys ignores the token.
client = AuthenticatedClient(base_url=BASE_URL, token="none", timeout=httpx.Timeout(120))
told: dict[str, object] = {}


def files() -> list[File]:
    return [File(io.BytesIO(Path(name).read_bytes()), Path(name).name, "image/png") for name in NAMES]


def statuses(job_id: str) -> Iterator[str]:
    """Follow a job by its events; a stream is read with httpx, whose request the client prepares."""
    with client.get_httpx_client().stream(**follow_job._get_kwargs(job_id)) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])["status"]


made = generate_images.sync(client=client, body=GenerateRequest(prompt="a red fox", num_inference_steps=4))
assert isinstance(made, GenerationRead)
told["generated"] = made.images[0].format_.value

body = GenerateImageRequest(prompt="a red fox", num_inference_steps=4, output_format=ImageFormat.JPEG)
picture = generate_image.sync(client=client, body=body)
assert isinstance(picture, File)
told["bytes"] = picture.payload.read()[:3].hex()

request = GenerateRequest(prompt="a red fox", num_inference_steps=4)
queued = generate_images.sync(client=client, body=request, prefer="respond-async")
assert isinstance(queued, GenerateJob)
told["job"] = list(statuses(queued.id))[-1]
job = get_job.sync(queued.id, client=client)
assert isinstance(job, GenerateJob)
assert job.result is not None
told["spec"] = job.spec.prompt
told["has_result"] = bool(job.result.generation_id)

scores = score_image_files.sync(client=client, body=ClipScoreForm(labels=["fox", "dog", "car"], image=files()[0]))
assert isinstance(scores, ClipScoreRead)
told["scored"] = [score.label for score in scores.scores]

recipe = DatasetCreate(
    name="python",
    classes=[DatasetClass(name=name, prompts=[f"a drawing of a {name}"]) for name in ("fox", "dog")],
    generation=RecipeSettings(num_inference_steps=4, guidance_scale=GuidanceRange(min_=2.0, max_=3.0)),
    train_per_class=4,
    test_per_class=2,
)
plan = create_dataset.sync(client=client, body=recipe, dry_run=True)
assert isinstance(plan, DatasetPlan)
told["planned"] = plan.num_images
dataset = create_dataset.sync(client=client, body=recipe)
assert isinstance(dataset, DatasetRead)
assert dataset.job_id is not None
told["dataset"] = list(statuses(dataset.job_id))[-1]

form = UploadImagesForm(files=files(), class_name="fox", split=Split.TRAIN)
upload = upload_dataset_images.sync(dataset.id, client=client, body=form)
assert isinstance(upload, UploadRead)
told["uploaded"] = upload.num_accepted

asked = TrainJobCreate(dataset_id=dataset.id, name="python-model", backbone="resnet18", epochs=2)
training = create_train_job.sync(client=client, body=asked)
assert isinstance(training, TrainJobRead)
told["trained"] = list(statuses(training.id))[-1]
trained = get_job.sync(training.id, client=client)
assert isinstance(trained, TrainJob)
assert trained.result is not None
model = get_model.sync(trained.result.model_id, client=client)
assert isinstance(model, ModelRead)
told["classes"] = model.classes

classify = ClassifyForm(image=files()[0], model=model.name, top_k=2, explain=False)
classified = classify_image_files.sync(client=client, body=classify)
assert isinstance(classified, ClassificationRead)
told["predictions"] = len(classified.predictions)

refused = get_model.sync("none", client=client)
assert isinstance(refused, Problem)
told["refused"] = refused.code.value
print(json.dumps(told))
