"""Recipes near the limit of size, each large in another part."""

from typing import Any

MAX_BYTES = 2_000_000
PER_CLASS = {"train_per_class": 1, "test_per_class": 0, "generation": {"num_inference_steps": 1}}


def many_classes(name: str = "many", num: int = 300, prompts: int = 10, length: int = 630) -> dict[str, Any]:
    """Return a request with many classes and long prompts; 1.9 MB."""
    classes = [
        {"name": f"class {k}", "prompts": [f"{k} {j} ".ljust(length, "x") for j in range(prompts)]} for k in range(num)
    ]
    return {"name": name, "seed": 7, "classes": classes, **PER_CLASS}


def long_negatives(name: str = "negative") -> dict[str, Any]:
    """Return a request with long negative prompts outside ASCII; 1.9 MB, three times as much with JSON escapes."""
    classes = [{"name": f"c{k}", "prompts": ["a fox"], "negative_prompt": "é" * 2_000} for k in range(475)]
    return {"name": name, "seed": 7, "classes": classes, **PER_CLASS}


def long_variables(name: str = "variables") -> dict[str, Any]:
    """Return a request with long lists of values; 1.3 MB, three times as much with JSON escapes."""
    names = [f"v{k}" for k in range(8)]
    values = {name: [f"{k}" + "🦊" * 196 for k in range(200)] for name in names}
    classes = [{"name": name, "prompts": [f"{{{name}}}"]} for name in names]
    return {"name": name, "seed": 7, "classes": classes, "variables": values, **PER_CLASS, "train_per_class": 20}


def few_classes(name: str = "few", prompts: int = 100) -> dict[str, Any]:
    """Return a request with few classes and the maximum number and length of prompts; 1.8 MB."""
    classes = [{"name": f"c{k}", "prompts": [f"{j}".ljust(2_000, "y") for j in range(prompts)]} for k in range(9)]
    return {"name": name, "seed": 7, "classes": classes, **PER_CLASS, "train_per_class": 20}


LARGE = (many_classes, long_negatives, long_variables, few_classes)
