"""Texts and codes for the faults that pydantic finds. Pure; imports no request and no response."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic_core.core_schema import ErrorType

# Codes that differ from pydantic's name of the fault.
_CODES = {
    "extra_forbidden": "unknown_field",
    "missing": "missing",
    "finite_number": "not_finite",
    "string_unicode": "text_not_storable",
    "string_too_long": "too_long",
    "string_too_short": "too_short",
    "too_long": "too_many",
    "too_short": "too_few",
    "greater_than": "too_small",
    "greater_than_equal": "too_small",
    "less_than": "too_large",
    "less_than_equal": "too_large",
}
_OBJECT, _NUMBER, _WHOLE, _SWITCH = "a JSON object", "a number", "a whole number", "true or false"
# Filled from the fault's context, which contains no input.
_MUST = {
    "model_type": f"be {_OBJECT}",
    "model_attributes_type": f"be {_OBJECT}",
    "dataclass_type": f"be {_OBJECT}",
    "dict_type": f"be {_OBJECT}",
    "list_type": "be a JSON array",
    "string_type": "be a string",
    "string_unicode": "not contain NUL or lone surrogates",
    "int_type": f"be {_WHOLE}",
    "int_parsing": f"be {_WHOLE}",
    "int_parsing_size": f"be {_WHOLE} of fewer digits",
    "int_from_float": f"be {_WHOLE}",
    "float_type": f"be {_NUMBER}",
    "float_parsing": f"be {_NUMBER}",
    "finite_number": "be a finite number",
    "bool_type": f"be {_SWITCH}",
    "bool_parsing": f"be {_SWITCH}",
    "multiple_of": "be a multiple of {multiple_of}",
    "greater_than": "be greater than {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}",
    "literal_error": "be {expected}",
    "enum": "be {expected}",
    "string_pattern_mismatch": "have the form {pattern}",
    "string_too_long": "have at most {max_length} character(s)",
    "string_too_short": "have at least {min_length} character(s)",
    "too_long": "have at most {max_length} item(s)",
    "too_short": "have at least {min_length} item(s)",
}
_PYDANTIC_TYPES = frozenset(get_args(ErrorType))


def code_and_detail(fault: Mapping[str, Any]) -> tuple[str, str]:
    """Return the stable code of a fault and a sentence for a person; neither repeats the input.

    Args:
        fault: An item of `ValidationError.errors()`.
    """
    kind = fault["type"]
    code = _CODES.get(kind, kind)
    if kind == "missing":
        return code, "This field is required."
    if kind in _MUST:
        return code, f"This must {_filled(_MUST[kind], fault.get('ctx', {}))}."
    if kind in _PYDANTIC_TYPES:
        return code, "This value is not valid here."
    return code, fault["msg"]  # raised by Foxhound's own validators


def _filled(words: str, context: Mapping[str, Any]) -> str:
    """Fill the numbers in; use the singular for one."""
    values = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    is_one = 1 in (context.get("max_length"), context.get("min_length"))
    return words.format_map(values).replace("(s)", "" if is_one else "s")
