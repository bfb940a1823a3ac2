"""Writes the types of `foxhound_client` from docs/openapi.json: `python clients/python.py`.

`models.py` has a pydantic model for each answer, `requests.py` a TypedDict for each JSON body. Reads one file and
imports nothing of the application. It runs at development time alone; tests/unit/client/test_types.py compares its
texts with the files.
"""

import json
import keyword
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
SCHEMAS = "#/components/schemas/"
# Later versions of the service have more error codes, which an older client must still read.
OPEN_ENUMS = {"ErrorCode"}
SCALARS = {"integer": "int", "number": "float", "boolean": "bool", "null": "None"}

Schema = dict[str, Any]

MODELS = '''"""The answers of a Foxhound service, as pydantic models; clients/python.py writes this file.

Unknown members are kept: a later version of the service may add some. Imports nothing but pydantic.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
'''

REQUESTS = '''"""The JSON bodies that a Foxhound service takes, as TypedDicts; clients/python.py writes this file.

Imports nothing but typing.
"""

from typing import Literal, Required, TypedDict
'''


def models_text(document: Schema) -> str:
    """Return the text of `foxhound_client/models.py`."""
    writer = _Writer(document, of_answers=True)
    return MODELS + "".join(writer.definitions(_schemas(document, _answer_contents)))


def requests_text(document: Schema) -> str:
    """Return the text of `foxhound_client/requests.py`."""
    writer = _Writer(document, of_answers=False)
    return REQUESTS + "".join(writer.definitions(_schemas(document, _body_contents)))


def _answer_contents(operation: Schema) -> Iterator[Schema]:
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield answer.get("content", {})


def _body_contents(operation: Schema) -> Iterator[Schema]:
    yield operation.get("requestBody", {}).get("content", {})


def _schemas(document: Schema, contents: Any) -> list[Schema]:
    """Return the JSON schemas of all operations' answers or bodies."""
    return [
        media["schema"]
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "responses" in operation
        for content in contents(operation)
        for kind, media in content.items()
        if kind in ("application/json", "text/event-stream")
    ]


class _Writer:
    def __init__(self, document: Schema, *, of_answers: bool) -> None:
        self._components: dict[str, Schema] = document["components"]["schemas"]
        self._of_answers = of_answers

    def definitions(self, roots: list[Schema]) -> Iterator[str]:
        """Yield each definition that the roots need, after those that it needs."""
        written: dict[str, None] = {}
        for root in roots:
            self._order(root, written)
        for name in written:
            schema = self._components[name]
            if "properties" not in schema:
                yield f"\n\n{name} = {self._type(schema, is_open=name in OPEN_ENUMS)}\n"
            else:
                yield f"\n\n{self._class(name, schema)}"

    def _order(self, schema: Any, written: dict[str, None]) -> None:
        """Add the names of the components that a schema refers to, the deepest first."""
        if isinstance(schema, list):
            for part in schema:
                self._order(part, written)
        elif isinstance(schema, dict):
            name = str(schema.get("$ref", "")).removeprefix(SCHEMAS)
            if name and name not in written:
                self._order(self._components[name], written)
                written[name] = None
            for key, part in schema.items():
                if key not in ("discriminator", "not", "example", "examples", "default"):
                    self._order(part, written)

    def _class(self, name: str, schema: Schema) -> str:
        base = "Answer" if self._of_answers else "TypedDict, total=False"
        lines = [f"class {name}({base}):", f'    """{_summary(schema)}"""', ""]
        required = schema.get("required", [])
        for field, part in schema["properties"].items():
            kind = self._type(part)
            if not self._of_answers:
                kind = f"Required[{kind}]" if field in required else kind
                lines.append(f"    {field}: {kind}")
                continue
            lines.append(f"    {_field(field, kind, field in required)}")
        return "\n".join(lines) + "\n"

    def _type(self, schema: Schema, *, is_open: bool = False) -> str:
        if "$ref" in schema:
            return str(schema["$ref"]).removeprefix(SCHEMAS)
        if "const" in schema:
            return f"Literal[{_literal(schema['const'])}]"
        if "enum" in schema:
            return "str" if is_open else f"Literal[{', '.join(map(_literal, schema['enum']))}]"
        if options := schema.get("anyOf") or schema.get("oneOf"):
            union = " | ".join(dict.fromkeys(self._type(option) for option in options))
            by = schema.get("discriminator", {}).get("propertyName")
            return f'Annotated[{union}, Field(discriminator="{by}")]' if by and self._of_answers else union
        if schema.get("type") == "array":
            return f"list[{self._type(schema.get('items', {}))}]"
        if schema.get("type") == "object":
            members = schema.get("additionalProperties")
            return f"dict[str, {self._type(members) if isinstance(members, dict) else 'object'}]"
        if schema.get("type") == "string":
            return "datetime" if schema.get("format") == "date-time" and self._of_answers else "str"
        return SCALARS.get(str(schema.get("type")), "object")


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _field(name: str, kind: str, is_required: bool) -> str:
    """Return the line of a model's field; one that hides a member of pydantic's or a word of Python gets a `_`."""
    attribute = "".join(sign if sign.isalnum() else "_" for sign in name)
    attribute += "_" if keyword.iskeyword(name) or hasattr(BaseModel, name) else ""
    arguments = [] if is_required else ["default=None"]
    if attribute != name:
        arguments.append(f'alias="{name}"')
    kind = kind if is_required or "None" in kind or kind == "object" else f"{kind} | None"
    if arguments == ["default=None"]:
        return f"{attribute}: {kind} = None"
    return f"{attribute}: {kind}" + (f" = Field({', '.join(arguments)})" if arguments else "")


def _summary(schema: Schema) -> str:
    """Return a one-line docstring: the first sentence of the description, or the title."""
    text = " ".join(str(schema.get("description") or schema.get("title", "An object.")).split())
    sentence = text.split(". ")[0].rstrip(".") + "."
    return sentence.replace("\\", "").replace('"', "'")


def main() -> None:
    """Write both files."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    for name, text in (("models.py", models_text(document)), ("requests.py", requests_text(document))):
        (ROOT / "foxhound_client" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
