"""What schemathesis leaves out of its checks of a node, each with its reason.

Loaded by schemathesis, in an environment of its own (requirements.txt); imports nothing of the application. A rule is
named by the code of the problem that the node answers, so the list needs no operations: a request that fits its schema
may be refused with these codes, and with no other.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import JsonSchemaError, RejectedPositiveData

EVENTS = "text/event-stream"

# Rules that a schema cannot state, by the code of the refusal.
RULES: Mapping[str, str] = {
    # What exists, which changes while requests come.
    "bad_cursor": "A cursor is opaque: only the service makes one.",
    "class_not_found": "The class of a dataset; `class` of a query needs its `dataset_id`.",
    "dataset_not_found": "A body or a query names a dataset.",
    "image_not_found": "A body names an image.",
    "model_not_found": "A body or a query names a model.",
    "backbone_not_found": "A body names a backbone; /backbones lists those of the node.",
    "idempotency_key_reused": "A key belongs to one request.",
    "split_empty": "A split of a dataset may have no images.",
    "dataset_empty": "A dataset may have no images.",
    "class_without_images": "A class may have no images.",
    "classes_unknown": "A dataset may have classes that a model does not know.",
    "validation_empty": "A dataset may have too few images for a part of them to be set aside.",
    "duplicate_image": "The dataset may have the image already.",
    # One value decides about another, in another place or by a computation.
    "idempotency_key_not_inline": "The header needs `Prefer: respond-async`.",
    "b64_json_not_with_respond_async": "A member of the body excludes `Prefer: respond-async`.",
    "several_images": "A number in the body excludes a media type in `Accept`.",
    "bad_range": "min <= max, and a step of 0.1 in binary fractions.",
    "bad_guidance_scale": "min <= max in steps of 0.1, where a number is possible too.",
    "bad_guidance_interval": "The first number must be below the second.",
    "bad_timesteps": "Each number must be below the one before.",
    "one_schedule": "timesteps decide the number of steps.",
    "init_image_missing": "Other fields need a picture to begin with, which a recorded generation may have.",
    "strength_too_low": "strength x steps must be a step at least.",
    "bad_strength": "min <= max in steps of 0.05, where a number is possible too; only with from_images.",
    "mask_size_differs": "Of the initial image.",
    "image_differs": "A hash and an image that are given both.",
    "animated_image": "Bytes are a picture of one frame, or not.",
    "best_of_too_small": "best_of >= num_images_per_prompt.",
    "clip_skip_not_supported": "Of the loaded model.",
    "lora_not_found": "A body names files of the node.",
    "embedding_not_found": "A body names files of the node.",
    "duplicate_adapters": "Names in a list of objects must differ.",
    "loras_too_large": "Of the node's settings and files.",
    "shot_held_out": "Of the dataset that the image is in.",
    "duplicate_shots": "Ids that name equal pictures.",
    "nothing_to_make": "One of several numbers must be above 0.",
    "bad_num_inference_steps": "min <= max, where a number is possible too.",
    "seed_too_large": "seed + number of images <= 2^53.",
    "work_too_large": "Images x steps x width x height has a limit.",
    "too_many_images": "Classes x images of a class has a limit.",
    "recipe_too_large": "The bytes of several members together have a limit.",
    "unsupported_num_inference_steps": "The noise scheduler of another member limits the steps.",
    "too_few #/classes/*/prompts": "Only the preset `from_prompts` writes prompts.",
    "too_few #/dataset/classes/*/prompts": "Only the preset `from_prompts` writes prompts, and the job may have it.",
    "duplicate_classes": "Names are compared after Unicode's case folding and normalization.",
    "duplicate_labels": "Labels are compared after Unicode's case folding and normalization.",
    "bad_model_ids": "The ids between the commas must differ.",
    # The node's own limits, which /capabilities has.
    "size_not_supported": "Of the loaded model.",
    "speed_not_offered": "Of the loaded model.",
    "guidance_not_supported": "Of the loaded model's settings of a speed.",
    "mask_missing": "Of the loaded model.",
    "too_many_steps": "Of the node's settings.",
    "not_exportable": "Of the model and the installed libraries.",
    "combined_backbones": "Of the model.",
    "nothing_to_explain": "Of the backbone.",
    "fine_tune_not_supported": "Of the backbone.",
    # What is written in a text or in bytes.
    "text_not_storable": "NUL, which Postgres cannot store. A pattern at every text would say it, and nothing else.",
    "text_empty": "Which characters are visible is a table of Unicode.",
    "bad_template": "Braces in a prompt are a language.",
    "unknown_variable": "A prompt names members of `variables`.",
    "unused_variable": "A prompt names members of `variables`.",
    "too_many_combinations": "Of the variables that a prompt names.",
    "prompt_may_be_empty": "Prompt and variables together.",
    "prompt_too_long": "Prompt and variables together, and the limit is that of the loaded model.",
    "bad_model_name": "A model's name must not have the form of an id.",
    "bad_head": "The solver of a head decides which of its other members are possible.",
    "unsupported_image": "Bytes are a picture, or not.",
    "corrupt_image": "Bytes are a picture, or not.",
    "bad_base64": "To a schema, `contentEncoding` is an annotation.",
}
# In forms, for the reason of before_load_schema: `missing` of an image, and too many parts with both sources.
FORM_RULES = ("one_image_source", "explains_one_image", "malformed_form", "missing #/image")


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Take `not` out of forms with files, and out of `DatasetExtend`; the node refuses what it excludes.

    schemathesis 4.32 cannot judge a generated file by `not`, and ends. It takes null for a value of `DatasetExtend`,
    because `not` excludes numbers only.
    """
    for name, schema in raw_schema["components"]["schemas"].items():
        if name == "DatasetExtend" or '"binary"' in json.dumps(schema):
            schema.pop("not", None)


@schemathesis.hook  # type: ignore[untyped-decorator]
def filter_failure(context: Any, failure: Failure, case: Any, response: Response) -> bool:
    """Drop the failures that are exclusions."""
    if isinstance(failure, RejectedPositiveData):
        return not _codes(response) <= _rules_of(case)
    # In the file, the schema of an event stream is that of one event's `data`, as generators of clients read it;
    # schemathesis takes it for the whole event. `event_data_conformance` checks the data.
    return not (isinstance(failure, JsonSchemaError) and _media_type(response) == EVENTS)


def _rules_of(case: Any) -> set[str]:
    is_form = case.media_type == "multipart/form-data"
    return {*RULES, *(FORM_RULES if is_form else ())}


def _codes(response: Response) -> set[str]:
    """Return the codes of all faults of a problem; a general one with its pointer, where indices are `*`."""
    problem = response.json()
    faults = problem.get("errors") or [problem]
    return {_named(fault["code"], fault.get("pointer", "")) for fault in faults}


def _named(code: str, pointer: str) -> str:
    return f"{code} {re.sub(r'/[0-9]+', '/*', pointer)}" if code in ("missing", "too_few") else code


def _media_type(response: Response) -> str:
    return str(response.headers.get("content-type", [""])[0]).partition(";")[0]


@schemathesis.check  # type: ignore[untyped-decorator]
def event_data_conformance(ctx: Any, response: Response, case: Any) -> None:
    """Check the data of each event of a stream against the schema of the stream."""
    if _media_type(response) != EVENTS:
        return
    document = case.operation.schema.raw_schema
    responses = document["paths"][case.operation.path][case.operation.method]["responses"]
    schema = responses[str(response.status_code)]["content"][EVENTS]["schema"]
    validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
    whole, _, _ = response.content.decode().replace("\r\n", "\n").rpartition("\n\n")
    for line in whole.splitlines():
        if line.startswith("data:"):
            error = next(iter(validator.iter_errors(json.loads(line.removeprefix("data:")))), None)
            assert error is None, f"The data of an event does not match its schema: {error}"
