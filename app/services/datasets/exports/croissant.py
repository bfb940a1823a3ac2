"""The description of a dataset in Croissant 1.1: its archive, the files in it, and the tables that they hold.

Opens no session and no file. Pure functions of the records; any thread may call them.

Source: MLCommons, "Croissant Format Specification", version 1.1, and its example of image classification by folders.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.db.models import Dataset
from app.schemas.croissant import (
    CroissantCreator,
    CroissantExtract,
    CroissantField,
    CroissantFile,
    CroissantFileSet,
    CroissantRead,
    CroissantRecordSet,
    CroissantRef,
    CroissantSource,
    CroissantTerm,
    CroissantTransform,
)
from app.services.datasets.exports.card import DTYPES, ContentCounts, splits_of

ARCHIVE = "archive.zip"
_IMAGES = "image-files"
# Fields have no `references` to classes and splits: mlcroissant 1.1 joins tables by them, and then gives all fields of
# one column the value of one of them.
_LABEL_FIELDS = ("images/folder", "/label")
_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "float64": "sc:Float"}
# The terms of Croissant's vocabulary; each stands for `cr:` and itself.
_TERMS = [
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty",
    "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
    "separator", "source", "subField", "transform",
]  # fmt: skip
_CONTEXT: dict[str, str | CroissantTerm] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": CroissantTerm(id="cr:data", type="@json"),
    "dataType": CroissantTerm(id="cr:dataType", type="@vocab"),
    "examples": CroissantTerm(id="cr:examples", type="@json"),
    "name": CroissantTerm(container="@language"),
    "description": CroissantTerm(container="@language"),
    **{term: f"cr:{term}" for term in _TERMS},
}


@dataclass(frozen=True, slots=True)
class ZipFacts:
    """The archive that a description is of.

    Attributes:
        num_bytes: Its size in bytes.
        sha256: The hash of its bytes, hexadecimal.
    """

    num_bytes: int
    sha256: str


def croissant(dataset: Dataset, version: str, counts: ContentCounts, archive: ZipFacts, base_url: str) -> CroissantRead:
    """Return the description.

    Args:
        dataset: The dataset.
        version: The version of its content.
        counts: Its images.
        archive: The zip of this version.
        base_url: The URL of this service without a slash at its end.
    """
    url, splits = f"{base_url}/datasets/{dataset.id}", splits_of(counts)
    return CroissantRead(
        context=_CONTEXT,
        name=dataset.name,
        description=f"{counts.total()} images in {len(dataset.classes)} classes, generated or uploaded with Foxhound.",
        url=url,
        version=f"1.0.0+{version[:12]}",
        license="unknown",
        creator=CroissantCreator(name="Foxhound"),
        date_published=dataset.created_at.date().isoformat(),
        cite_as=f"{dataset.name}, version {version}. Made with Foxhound.",
        keywords=["image classification", *sorted({source for _, _, source in counts})],
        distribution=[
            CroissantFile(
                id=ARCHIVE,
                name=ARCHIVE,
                description="Images, metadata and recipe.",
                content_url=f"{url}/{ARCHIVE}",
                content_size=f"{archive.num_bytes} B",
                encoding_format="application/zip",
                sha256=archive.sha256,
            ),
            _image_files(splits),
            *map(_metadata_file, splits),
        ],
        record_set=[_splits(splits), _classes(dataset), _images(), *map(_metadata, splits)],
    )


def _image_files(splits: Sequence[str]) -> CroissantFileSet:
    return CroissantFileSet(
        id=_IMAGES,
        name=_IMAGES,
        description="The images of all splits.",
        contained_in=CroissantRef(id=ARCHIVE),
        encoding_format="image/*",
        includes=[f"{split}/*/*" for split in splits],
    )


def _metadata_file(split: str) -> CroissantFile:
    # A file each: mlcroissant 1.1 reads columns of single files only.
    return CroissantFile(
        id=f"metadata-{split}.jsonl",
        name=f"metadata-{split}.jsonl",
        description=f"A line for each image of {split}.",
        content_url=f"{split}/metadata.jsonl",
        encoding_format="application/jsonlines",
        contained_in=CroissantRef(id=ARCHIVE),
    )


def _splits(splits: Sequence[str]) -> CroissantRecordSet:
    return CroissantRecordSet(
        id="splits",
        name="splits",
        description="The splits that have images.",
        data_type="cr:Split",
        key=CroissantRef(id="splits/name"),
        field=[_field("splits/name", "The name of the split, and of its folder.", "sc:Text")],
        data=[{"splits/name": split} for split in splits],
    )


def _classes(dataset: Dataset) -> CroissantRecordSet:
    return CroissantRecordSet(
        id="classes",
        name="classes",
        description="The classes, in the dataset's order.",
        data_type="sc:Enumeration",
        key=CroissantRef(id="classes/folder"),
        field=[
            _field("classes/index", "The number of the class, also in models that are trained here.", "sc:Integer"),
            _field("classes/name", "The name of the class.", "sc:Text"),
            _field("classes/folder", "The folder of the class in each split.", "sc:Text"),
        ],
        data=[
            {"classes/index": index, "classes/name": entry["name"], "classes/folder": entry["folder"]}
            for index, entry in enumerate(dataset.classes)
        ],
    )


def _images() -> CroissantRecordSet:
    split, folder = r"^.*?(train|validation|test)/[^/]+/[^/]+$", r"^.*?([^/]+)/[^/]+$"
    return CroissantRecordSet(
        id="images",
        name="images",
        description="The images, with the split and the class that their paths name.",
        key=CroissantRef(id="images/path"),
        field=[
            _field("images/path", "The path in the archive.", "sc:Text", _of_path(None)),
            _field("images/image", "The image.", "sc:ImageObject", _of_file("content")),
            _field("images/split", "The split.", "sc:Text", _of_path(split)),
            _field("images/folder", "The folder of the class.", "sc:Text", _of_path(folder)),
        ],
    )


def _metadata(split: str) -> CroissantRecordSet:
    columns, file = {"file_name": "string", "label": "string", **DTYPES}, CroissantRef(id=f"metadata-{split}.jsonl")
    return CroissantRecordSet(
        id=f"metadata-{split}",
        name=f"metadata-{split}",
        description="What each image was made from. Where there is no value, a number is -1 and a text empty.",
        field=[
            _field(
                f"metadata-{split}/{name}",
                f"The column `{name}`.",
                _TYPES[dtype],
                CroissantSource(file_object=file, extract=CroissantExtract(column=name)),
            )
            for name, dtype in columns.items()
        ],
    )


def _of_file(what: str) -> CroissantSource:
    extract = CroissantExtract.model_validate({"fileProperty": what})
    return CroissantSource(file_set=CroissantRef(id=_IMAGES), extract=extract)


def _of_path(regex: str | None) -> CroissantSource:
    source = _of_file("fullpath")
    return source if regex is None else source.model_copy(update={"transform": CroissantTransform(regex=regex)})


def _field(name: str, description: str, data_type: str, source: CroissantSource | None = None) -> CroissantField:
    types = [data_type, "cr:Label"] if name.endswith(_LABEL_FIELDS) else [data_type]
    return CroissantField(id=name, name=name, description=description, data_type=types, source=source)
