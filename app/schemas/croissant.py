"""Response models of a dataset's description in Croissant 1.1, which is JSON-LD. Imports no services; pure.

Source: MLCommons, "Croissant Format Specification", version 1.1: names and types of the members.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from app.schemas.common import Response, Sha256

FileProperty = TypeAliasType("FileProperty", Literal["content", "fullpath"])


class JsonLd(Response):
    """A node of the description; members whose names begin with `@` have a field without it."""

    # Members that are null are left out.
    model_config = ConfigDict(
        populate_by_name=True, serialize_by_alias=True, json_schema_serialization_defaults_required=False
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Require the constants, such as `@type`, which tells the nodes apart: they are never left out."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        node = handler.resolve_ref_schema(schema)
        constants = [name for name, member in node["properties"].items() if "const" in member]
        node["required"] = [*constants, *node.get("required", [])]
        return schema


class CroissantTerm(JsonLd):
    """The definition of a term in the context."""

    id: str | None = Field(None, alias="@id")
    type: str | None = Field(None, alias="@type")
    container: str | None = Field(None, alias="@container")


class CroissantRef(JsonLd):
    """A reference to a node by its id."""

    id: str = Field(alias="@id")


class CroissantTransform(JsonLd):
    """A regular expression whose first group is the value."""

    regex: str


class CroissantExtract(JsonLd):
    """What is read from a file: a column, or a property of the file itself."""

    column: str | None = None
    file_property: FileProperty | None = Field(None, alias="fileProperty")


class CroissantSource(JsonLd):
    """Where a field's values come from: one of a file and a set of files, and what is read of it."""

    file_object: CroissantRef | None = Field(None, alias="fileObject")
    file_set: CroissantRef | None = Field(None, alias="fileSet")
    extract: CroissantExtract
    transform: CroissantTransform | None = None


class CroissantField(JsonLd):
    """A column of a record set."""

    type: Literal["cr:Field"] = Field("cr:Field", alias="@type")
    id: str = Field(alias="@id")
    name: str
    description: str
    data_type: list[str] = Field(alias="dataType", description="The type of the values; `cr:Label` marks a label.")
    source: CroissantSource | None = None


class CroissantRecordSet(JsonLd):
    """A table: of the splits, of the classes, of the images, or of their metadata."""

    type: Literal["cr:RecordSet"] = Field("cr:RecordSet", alias="@type")
    id: str = Field(alias="@id")
    name: str
    description: str
    data_type: str | None = Field(None, alias="dataType")
    key: CroissantRef | None = None
    field: list[CroissantField]
    data: list[dict[str, str | int]] | None = Field(None, description="The records, by the ids of the fields.")


class CroissantFile(JsonLd):
    """The archive, or a file in it."""

    type: Literal["cr:FileObject"] = Field("cr:FileObject", alias="@type")
    id: str = Field(alias="@id")
    name: str
    description: str
    content_url: str = Field(alias="contentUrl")
    content_size: str | None = Field(None, alias="contentSize")
    encoding_format: str = Field(alias="encodingFormat")
    contained_in: CroissantRef | None = Field(None, alias="containedIn")
    sha256: Sha256 | None = None


class CroissantFileSet(JsonLd):
    """Files of the archive."""

    type: Literal["cr:FileSet"] = Field("cr:FileSet", alias="@type")
    id: str = Field(alias="@id")
    name: str
    description: str
    contained_in: CroissantRef = Field(alias="containedIn")
    encoding_format: str = Field(alias="encodingFormat")
    includes: list[str]


class CroissantCreator(JsonLd):
    """What made the dataset."""

    type: Literal["Organization"] = Field("Organization", alias="@type")
    name: str


CroissantDistribution = Annotated[CroissantFile | CroissantFileSet, Field(discriminator="type")]


class CroissantRead(JsonLd):
    """A dataset in Croissant 1.1."""

    context: dict[str, str | CroissantTerm] = Field(alias="@context")
    type: Literal["Dataset"] = Field("Dataset", alias="@type")
    conforms_to: Literal["http://mlcommons.org/croissant/1.1"] = Field(
        "http://mlcommons.org/croissant/1.1", alias="conformsTo"
    )
    name: str
    description: str
    url: str
    version: str = Field(description="Semantic version; its build part is the first digits of the content's hash.")
    license: str
    creator: CroissantCreator
    date_published: str = Field(alias="datePublished")
    cite_as: str = Field(alias="citeAs")
    keywords: list[str]
    distribution: list[CroissantDistribution]
    record_set: list[CroissantRecordSet] = Field(alias="recordSet")
