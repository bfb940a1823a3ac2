"""`foxhound generate`, `score`, `classify` and `train`: what a service does for one request.

Imports nothing of the server. It runs in the main thread of the command's process. Exit statuses as of `dataset.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.bodies import read_body
from app.cli.connection import EXIT_FAILED, AsJson, DatasetId, Key, Patience, ServerUrl, connected
from app.cli.console import plain, print_cells, print_json, print_note, print_result, progress_display
from app.cli.files import check_folder, write_whole
from app.cli.following import follow_hint, show_until_end
from foxhound_client import Foxhound
from foxhound_client.client import DEFAULT_URL
from foxhound_client.models import (
    ClassificationRead,
    ClassificationsRead,
    GenerationProgress,
    GenerationRead,
    ImageFormat,
    LabelScore,
    ModelRead,
    NoiseScheduler,
    Prediction,
    TrainJob,
)

ImageFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="IMAGE", help="PNG, JPEG or WebP file.")
]
ImageFiles = Annotated[
    list[Path],
    typer.Argument(exists=True, dir_okay=False, readable=True, metavar="IMAGE...", help="PNG, JPEG or WebP files."),
]


def generate(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the image shows.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; of several images, each gets a number. Default: ID.png."),
    ] = None,
    num_images: Annotated[int, typer.Option("-n", "--images", min=1, max=16, help="Number of images.")] = 1,
    negative_prompt: Annotated[str | None, typer.Option(help="What the image does not show.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same images.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=150, help="Denoising steps. Default: 50.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, max=30, help="Guidance scale. Default: 7.5.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    scheduler: Annotated[NoiseScheduler | None, typer.Option(help="Noise scheduler.")] = None,
    image_format: Annotated[ImageFormat | None, typer.Option("--format", help="Default: that of --output.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Make images from a prompt and write them to files."""
    if output is not None:
        check_folder(output)
    given: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "width": width,
        "height": height,
        "scheduler": scheduler,
        "output_format": image_format or _format_of(output),
    }
    body = {name: value for name, value in given.items() if value is not None}
    with connected(ctx, server, patience_s) as fox:
        made = _generated(fox, {"prompt": prompt, "num_images_per_prompt": num_images, **body}, as_json)
        paths = _paths(made, output)
        for image, path in zip(made.images, paths, strict=True):
            write_whole(path, fox.image(image.id))
    for warning in made.warnings:
        print_note(warning.detail)
    if as_json:
        print_json({**plain(made), "files": [str(path) for path in paths]})
        return
    for image, path in zip(made.images, paths, strict=True):
        print_result(f"{path}: seed {image.seed}, {image.width} x {image.height} pixels")


def score(
    ctx: typer.Context,
    image: ImageFile,
    labels: Annotated[list[str], typer.Argument(metavar="LABEL...", help="Texts that may describe the image.")],
    template: Annotated[str | None, typer.Option(help="A text with {} for the label.")] = None,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Score with CLIP how well each label describes an image."""
    with connected(ctx, server, patience_s) as fox:
        answer = fox.clip_score(image, labels, template=template)
    if as_json:
        print_json(answer)
        return
    for warning in answer.warnings:
        print_note(warning.detail)
    _print_best((), sorted(answer.scores, key=lambda each: -each.probability))


def classify(
    ctx: typer.Context,
    images: ImageFiles,
    model: Annotated[
        str | None, typer.Option(help="Name or id of a trained model, or `photo`. Default: the pack's classifier.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Number of classes.")] = 5,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Classify images."""
    answer: ClassificationRead | ClassificationsRead
    with connected(ctx, server, patience_s) as fox:
        if len(images) == 1:
            answer = fox.classify(images[0], model=model, top_k=top_k)
        else:
            answer = fox.classify_all(images, model=model, top_k=top_k)
    if as_json:
        print_json(answer)
    elif isinstance(answer, ClassificationRead):
        _print_best((), answer.predictions)
    else:
        for image, result in zip(images, answer.results, strict=True):
            _print_best((image,), result.predictions)


def train(
    ctx: typer.Context,
    dataset_id: DatasetId,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Network whose features are used: GET /backbones.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, max=1000, help="Passes over the images.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the order of the images.")] = None,
    body: Annotated[
        typer.FileBinaryRead | None,
        typer.Option("--body", help="JSON file with further members of POST /train-jobs; - reads standard input."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the job to end.")] = False,
    as_json: AsJson = False,
    idempotency_key: Key = None,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Train a classifier on a dataset, and wait until it is there. Ctrl-C ends the command; the job continues."""
    given: dict[str, Any] = {"name": name, "backbone": backbone, "epochs": epochs, "seed": seed}
    request = read_body(body) if body is not None else {}
    request |= {key: value for key, value in given.items() if value is not None}
    with connected(ctx, server, patience_s) as fox:
        request["dataset_id"] = fox.datasets.find(dataset_id).id
        job = fox.train(idempotency_key=idempotency_key, **request)
    if no_wait:
        print_json(job) if as_json else print_result(f"The job {job.id} is accepted. {follow_hint(job.id, server)}")
        return
    with connected(ctx, server, patience_s, follow_hint(job.id, server)) as fox:
        ended = show_until_end(fox, job.id, as_json)
        if not isinstance(ended, TrainJob) or ended.result is None:
            if as_json:
                print_json(ended)
            raise typer.Exit(EXIT_FAILED)
        model = fox.models.get(ended.result.model_id)
    print_json(model) if as_json else print_result(_about(model))


def _generated(fox: Foxhound, body: dict[str, Any], as_json: bool) -> GenerationRead:
    """Make images and display their steps."""
    with progress_display(as_json) as display:
        for event in fox.generate_events(**body):
            if isinstance(event, GenerationProgress):
                text = f"image {event.image + 1} of {event.num_images}, step {event.step} of {event.steps}"
                display("drawing", event.step, event.steps, text)
            else:
                return event
    raise AssertionError("the events end with a generation or an error")


def _format_of(output: Path | None) -> str | None:
    """Return the format that a file name says, if it says one."""
    known = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
    return None if output is None else known.get(output.suffix.lower())


def _paths(made: GenerationRead, output: Path | None) -> list[Path]:
    """Return where each image goes."""
    if output is None:
        return [Path(f"{image.id}.{image.format}") for image in made.images]
    if len(made.images) == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, len(made.images) + 1)]


def _print_best(prefix: tuple[object, ...], results: Sequence[LabelScore] | Sequence[Prediction]) -> None:
    for result in results:
        print_cells(*prefix, f"{result.probability:.4f}", result.label)


def _about(model: ModelRead) -> str:
    """Return a model's name and what it was measured to be."""
    return f"{model.name} is trained, id {model.id}. {model.metrics.test.headline.sentence}"
