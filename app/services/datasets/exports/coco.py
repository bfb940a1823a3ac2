"""An exported dataset in the form of COCO annotations: the class of each image as an annotation of the whole image.

Files are named as in the archive. Opens no session and no file. Pure functions of the records; any thread may call
them.

Source: "Data format" of the COCO dataset, as pycocotools reads it: `images`, `annotations` with `image_id`,
`category_id`, `bbox`, `area` and `iscrowd`, and `categories`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from app.db.models import Dataset, Image
from app.schemas.exports import CocoAnnotation, CocoCategory, CocoImage, CocoInfo
from app.services.datasets.exports.card import member_name

COLUMNS = (Image.path, Image.class_index, Image.width, Image.height)


def coco_lines(dataset: Dataset, version: str, rows: Callable[[], Iterable[Any]]) -> Iterator[str]:
    """Yield a COCO file in parts, one line for each image and annotation.

    Args:
        dataset: The dataset.
        version: The version of its content.
        rows: Returns the images, with `COLUMNS`, in the order of their ids; called twice, so that no list is needed.
    """
    info = CocoInfo(description=dataset.name, version=version, date_created=dataset.created_at)
    categories = [
        CocoCategory(id=index, name=entry["name"], supercategory="") for index, entry in enumerate(dataset.classes)
    ]
    yield f'{{"info": {info.model_dump_json()}, "licenses": [],\n"categories": '
    yield json.dumps([one.model_dump() for one in categories], ensure_ascii=False)
    yield ',\n"images": ['
    yield from _joined(_image(dataset, number, row) for number, row in enumerate(rows(), 1))
    yield '],\n"annotations": ['
    yield from _joined(_annotation(number, row) for number, row in enumerate(rows(), 1))
    yield "]}\n"


def _image(dataset: Dataset, number: int, row: Any) -> str:
    name = member_name(dataset, row.path)
    return CocoImage(id=number, file_name=name, width=row.width, height=row.height).model_dump_json()


def _annotation(number: int, row: Any) -> str:
    return CocoAnnotation(
        id=number,
        image_id=number,
        category_id=row.class_index,
        bbox=[0, 0, row.width, row.height],
        area=row.width * row.height,
        iscrowd=0,
        segmentation=[],
    ).model_dump_json()


def _joined(records: Iterable[str]) -> Iterator[str]:
    for number, record in enumerate(records):
        yield f",\n{record}" if number else f"\n{record}"
