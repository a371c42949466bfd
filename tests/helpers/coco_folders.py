"""Folders in COCO's format that tests make: images of rectangles, and a JSON file for each split."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 3, "name": "red"}, {"id": 17, "name": "green"}]
"""With gaps in their ids, as COCO's have."""
WIDTH, HEIGHT = 48, 40
Entry = dict[str, Any]


def write_coco(root: Path, *, train: int = 8, val: int = 4, **changes: Any) -> Path:
    """A folder as it is distributed: a red or green rectangle in each image. `changes` replace lists of both files."""
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2017", train), ("val2017", val)):
        (root / split).mkdir()
        content = {"info": {}, "categories": CATEGORIES, "images": [], "annotations": []}
        for i in range(count):
            image, annotation = rectangle(i)
            image.save(root / split / f"{i:012d}.png")
            content["images"].append(image_entry(i))  # type: ignore[attr-defined]
            content["annotations"].append(annotation)  # type: ignore[attr-defined]
        write_json(root, split, content | changes)
    return root


def write_json(root: Path, split: str, content: Any) -> None:
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def read_json(root: Path, split: str = "train2017") -> dict[str, list[Entry]]:
    content: dict[str, list[Entry]] = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    return content


def rectangle(i: int) -> tuple[Image.Image, Entry]:
    """Image number i, and its figure."""
    rng = np.random.default_rng(i)
    pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    x, y, width, height = 4 + i % 8, 3 + i % 5, 20 + i % 7, 16 + i % 9
    pixels[y : y + height, x : x + width, i % 2] += 180
    return Image.fromarray(pixels), annotation_entry(i, [x, y, width, height], CATEGORIES[i % 2]["id"], id=100 + i)


def image_entry(number: int, **changes: Any) -> Entry:
    return {"id": 10 + number, "file_name": f"{number:012d}.png", "width": WIDTH, "height": HEIGHT} | changes


def annotation_entry(number: int, box: list[float], category: Any, **changes: Any) -> Entry:
    x, y, width, height = box
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    entry = {"id": 1, "image_id": 10 + number, "category_id": category, "bbox": box, "area": width * height}
    return entry | {"iscrowd": 0, "segmentation": [polygon]} | changes
