"""Checking the largest recipe takes time in proportion to its bytes."""

import time

from app.schemas.datasets import DatasetCreate
from app.services.datasets.validation import dataset_faults
from app.services.images.spec import SizeRules
from app.services.limits import Limits
from app.storage.class_folders import class_folders

SIZES = SizeRules(64, 64, 192, "pndm")


def request_of(num_classes: int, prompt: str, num_prompts: int, **fields: object) -> DatasetCreate:
    classes = [{"name": f"class {i}", "prompts": [prompt] * num_prompts} for i in range(num_classes)]
    return DatasetCreate.model_validate({"name": "large", "classes": classes, "train_per_class": 1, **fields})


def seconds_of(request: DatasetCreate) -> float:
    started_s = time.process_time()
    dataset_faults(request, SIZES, Limits())
    return time.process_time() - started_s


def codes(request: DatasetCreate) -> set[str]:
    return {fault.code for fault in dataset_faults(request, SIZES, Limits())}


def test_a_variable_of_long_values_used_everywhere_costs_no_more_than_its_letters() -> None:
    values = ["x" * 190 + f"{k:010}" for k in range(200)]
    many = request_of(16, "{a}" * 600, 50, variables={"a": values})
    assert codes(many) == {"prompt_too_long"}
    half = request_of(8, "{a}" * 600, 50, variables={"a": values})
    once, twice = min(seconds_of(half) for _ in range(3)), min(seconds_of(many) for _ in range(3))
    assert twice < 4 * once + 0.1
    assert twice < 5  # putting the values in took 10 s for 1,600 such prompts


def test_what_a_template_may_become_is_told_as_before() -> None:
    blank = {"a": ["", "x"], "b": [" "]}
    assert codes(request_of(2, "{a} {b}", 1, variables=blank)) == {"prompt_may_be_empty"}
    assert codes(request_of(2, "{a} fox {b}", 1, variables=blank)) == set()
    assert codes(request_of(2, "{a}" * 10, 1, variables={"a": ["x" * 200]})) == set()
    assert codes(request_of(2, "{a}" * 10 + "y", 1, variables={"a": ["x" * 200]})) == {"prompt_too_long"}
    # White space runs become one space, so these 3,000 characters become 1,039.
    assert codes(request_of(2, "{a}" * 20, 1, variables={"a": [" " * 75 + "x" * 50 + " " * 25]})) == set()
    assert codes(request_of(2, "{a}" * 2, 1, variables={"a": ["x"], "b": ["y"]})) == {"unused_variable"}


def test_folders_of_a_thousand_names_are_found_one_by_one() -> None:
    alike = [chr(0x4E00 + i) for i in range(1_000)]  # nothing of them remains in ASCII
    folders = class_folders(alike)
    assert len(set(folders)) == len(alike)
    assert folders[:501] == class_folders(alike[:501])
