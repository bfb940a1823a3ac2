"""`foxhound models`: list, show, evaluate, download and delete the trained models of a service.

Imports nothing of the server. It runs in the main thread of the command's process. Exit statuses as of `dataset.py`.
`packs.py` adds the commands for model packs to the same group.
"""

from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.connection import EXIT_FAILED, AsJson, DatasetId, Patience, ServerUrl, connected, keep_api_key
from app.cli.console import download_display, print_json, print_result, print_table
from app.cli.files import check_folder, print_file
from app.cli.following import follow_hint, show_until_end
from foxhound_client.client import DEFAULT_URL
from foxhound_client.models import EvaluateJob, HeadlineRead, Split

models_app = typer.Typer(
    callback=keep_api_key, help="Trained models of a running service, and model packs.", no_args_is_help=True
)
ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id or name.")]
Output = Annotated[
    Path, typer.Option("-o", "--output", dir_okay=False, help="File to write; an existing one is replaced at the end.")
]


@models_app.command("list")
def list_models(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of models.")] = 20,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """List the trained models, newest first. `foxhound models packs` lists the packs."""
    with connected(ctx, server, patience_s) as fox:
        found = list(islice(fox.models.list(), limit))
    if as_json:
        print_json(found)
        return
    rows = [
        (model.id, model.name, model.backbone, len(model.classes), _accuracy(model.metrics.test.headline))
        for model in found
    ]
    print_table(("ID", "Name", "Backbone", "Classes", "Test accuracy"), rows)


@models_app.command()
def show(
    ctx: typer.Context,
    model_id: ModelId,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Show a model: its card, or with --json all figures."""
    with connected(ctx, server, patience_s) as fox:
        model = fox.models.find(model_id)
        card = "" if as_json else fox.models.card(model.id)
    if as_json:
        print_json(model)
        return
    for line in card.splitlines():
        print_result(line)


@models_app.command()
def weights(
    ctx: typer.Context,
    model_id: ModelId,
    output: Output,
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Download what was trained, without the backbone: a safetensors file."""
    check_folder(output)
    with connected(ctx, server, patience_s) as fox, download_display() as display:
        fox.models.weights(fox.models.find(model_id).id, output, on_progress=display)
    print_file(output, as_json)


@models_app.command()
def export(
    ctx: typer.Context,
    model_id: ModelId,
    output: Output,
    form: Annotated[
        Literal["onnx", "safetensors", "bundle"], typer.Option("--format", help="What the zip file has.")
    ] = "bundle",
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Download a whole classifier, a zip file that runs without the service. Run again, it resumes."""
    check_folder(output)
    hint = f"Run the same command again: {output}.part is kept."
    with connected(ctx, server, patience_s, hint) as fox, download_display() as display:
        fox.models.export(fox.models.find(model_id).id, output, format=form, on_progress=display)
    print_file(output, as_json)


@models_app.command()
def evaluate(
    ctx: typer.Context,
    model_id: ModelId,
    dataset_id: DatasetId,
    split: Annotated[Split, typer.Option(help="The split to evaluate on.")] = "test",
    as_json: AsJson = False,
    server: ServerUrl = DEFAULT_URL,
    patience_s: Patience = None,
) -> None:
    """Evaluate a model on a dataset and wait for the figures. Ctrl-C ends the command; the job continues."""
    with connected(ctx, server, patience_s) as fox:
        model = fox.models.find(model_id)
        started = fox.evaluate(model.id, fox.datasets.find(dataset_id).id, split=split)
    with connected(ctx, server, patience_s, follow_hint(started.id, server)) as fox:
        job = show_until_end(fox, started.id, as_json)
        if not isinstance(job, EvaluateJob) or job.result is None:
            raise typer.Exit(EXIT_FAILED)
        evaluation = fox.models.evaluation(model.id, job.result.evaluation_id)
    if as_json:
        print_json(evaluation)
    else:
        accuracy = _accuracy(evaluation.metrics.headline)
        print_result(f"{model.name} on {split} of {evaluation.dataset_name}: accuracy {accuracy}")


@models_app.command()
def delete(ctx: typer.Context, model_id: ModelId, server: ServerUrl = DEFAULT_URL, patience_s: Patience = None) -> None:
    """Delete a trained model."""
    with connected(ctx, server, patience_s) as fox:
        model = fox.models.find(model_id)
        fox.models.delete(model.id)
    print_result(f"{model.name} is deleted.")


def _accuracy(headline: HeadlineRead) -> str:
    return "unknown" if headline.accuracy is None else f"{headline.accuracy.value:.1%}"
