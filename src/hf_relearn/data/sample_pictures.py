"""A small synthetic image-text data set, a folder of pictures with metadata, for when there is no data set at hand."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw

PICTURES_NOTICE = """\
No data set given: this run uses a small SYNTHETIC one (drawn shapes with made-up captions).
Its numbers show that everything works; they say nothing about real data.
For your own data, give
    --dataset_name HUB_ID_OR_FOLDER_OR_FILE --image_column ... --text_column ... --label_column ..."""
PICTURES_CARD_NOTE = (
    "This model was trained on a small SYNTHETIC data set (drawn shapes with made-up captions). It shows that "
    "everything works, and what a card looks like; its numbers say nothing about real data."
)

SIZE = 40
_SCALE = 2  # drawn larger, then scaled down, so that edges are smooth
_SPLITS = {"train": 1200, "validation": 300, "test": 300}
# A caption names the shape in this share of the samples; otherwise it only tells of a colour, which tells nothing.
_TELLING_SHARE = 0.7
# In this share of the samples the picture is half covered, so that neither modality is enough by itself.
_COVERED_SHARE = 0.35

_Draw = Callable[[ImageDraw.ImageDraw, float, float, float, float, tuple[int, int, int]], None]
_COLOURS = {
    "red": (200, 50, 50), "green": (50, 160, 70), "blue": (60, 90, 200), "yellow": (220, 200, 60),
    "purple": (140, 70, 170), "orange": (230, 140, 40),
}  # fmt: skip
_WORDS = {
    "circle": ("circle", "disc", "round dot"),
    "square": ("square", "box", "tile"),
    "triangle": ("triangle", "wedge", "pyramid"),
    "star": ("star", "spark", "asterisk"),
    "cross": ("cross", "plus sign", "crossing"),
    "ring": ("ring", "hoop", "loop"),
}
_NEUTRAL = ("shape", "figure", "thing", "sign")
_FRAMES = (
    "a {size} {colour} {word} on the wall",
    "there is one {word}, {size} and {colour}",
    "somebody drew a {colour} {word}",
    "look at this {size} {word} in {colour}",
    "{colour} {word} seen from {place}",
)
_SIZES = ("small", "large", "tiny", "big")
_PLACES = ("afar", "above", "the left", "near by")


def build_sample_pictures(root: str | os.PathLike[str], seed: int = 0) -> Path:
    """Draw the data set, or return its folder when it is already there.

    Six classes of shapes; `train`, `validation` and `test` are folders of 1200, 300 and 300 PNG files of 40 x 40
    pixels, each with a `metadata.jsonl` (`file_name`, `text`, `label`), as `datasets` reads them. The caption names
    the shape in 70 % of the samples and the picture is half covered in 35 %, so a model needs both. The same seed
    gives the same samples; the folder appears whole or not at all.

    Args:
        root: folder of the data set.
        seed: of everything random.

    Returns:
        `root`.

    Raises:
        FileExistsError: if there is such a folder with other content.
    """
    folder = Path(root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            if all((folder / split / "metadata.jsonl").is_file() for split in _SPLITS):
                return folder
            raise FileExistsError(f"{folder} is there, but holds no sample pictures: choose another folder")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as unfinished:
            for number, (split, count) in enumerate(_SPLITS.items()):
                _write_split(Path(unfinished) / "set" / split, count, np.random.default_rng([seed, number]))
            shutil.move(Path(unfinished) / "set", folder)
    return folder


def _write_split(folder: Path, count: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    names = list(_WORDS)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for index in range(count):
            label = names[index % len(names)]
            colour = str(rng.choice(list(_COLOURS)))
            draw_picture(label, colour, rng).save(folder / f"{index:04d}.png")
            row = {
                "file_name": f"{index:04d}.png",
                "text": write_caption(label, colour, rng),
                "label": label,
            }
            file.write(json.dumps(row) + "\n")


def write_caption(label: str, colour: str, rng: np.random.Generator) -> str:
    """Return a sentence about a shape, which names it or not."""
    words = _WORDS[label] if rng.random() < _TELLING_SHARE else _NEUTRAL
    sentence = str(rng.choice(_FRAMES))
    return sentence.format(word=rng.choice(words), colour=colour, size=rng.choice(_SIZES), place=rng.choice(_PLACES))


def draw_picture(label: str, colour: str, rng: np.random.Generator) -> Image.Image:
    """Return a (40, 40) RGB picture of a shape, anywhere, of any size and turned at will, on a restless background."""
    side = SIZE * _SCALE
    background = rng.integers(120, 240, 3)
    image = Image.new("RGB", (side, side), tuple(int(value) for value in background))
    canvas = ImageDraw.Draw(image)
    for _ in range(4):
        ends = [int(value) for value in rng.integers(0, side, 4)]
        grey = int(rng.integers(60, 220))
        canvas.line(ends, fill=(grey, grey, grey), width=2)
    radius = float(rng.uniform(0.18, 0.32)) * side
    x, y = (float(value) for value in rng.uniform(radius, side - radius, 2))
    _SHAPES[label](canvas, x, y, radius, float(rng.uniform(0, 2 * math.pi)), _COLOURS[colour])
    if rng.random() < _COVERED_SHARE:
        grey = int(rng.integers(60, 220))
        left = x - radius if rng.random() < 0.5 else x - 0.2 * radius
        canvas.rectangle([left, y - radius, left + 1.2 * radius, y + radius], fill=(grey, grey, grey))
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)).astype(float)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 14, pixels.shape), 0, 255).astype(np.uint8))


def _polygon(corners: int, inner: float = 1.0) -> _Draw:
    """Return a regular polygon, or a star whose inner corners stand at that share of the radius."""

    def draw(
        canvas: ImageDraw.ImageDraw, x: float, y: float, radius: float, angle: float, colour: tuple[int, int, int]
    ) -> None:
        number = corners if inner == 1.0 else 2 * corners
        points = []
        for index in range(number):
            reach = radius if inner == 1.0 or index % 2 == 0 else inner * radius
            turn = angle + 2 * math.pi * index / number
            points.append((x + reach * math.cos(turn), y + reach * math.sin(turn)))
        canvas.polygon(points, fill=colour)

    return draw


def _circle(
    canvas: ImageDraw.ImageDraw, x: float, y: float, radius: float, angle: float, colour: tuple[int, int, int]
) -> None:
    canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _ring(
    canvas: ImageDraw.ImageDraw, x: float, y: float, radius: float, angle: float, colour: tuple[int, int, int]
) -> None:
    canvas.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=int(radius / 3))


_SHAPES: dict[str, _Draw] = {
    "circle": _circle,
    "square": _polygon(4),
    "triangle": _polygon(3),
    "star": _polygon(5, inner=0.45),
    "cross": _polygon(4, inner=0.3),
    "ring": _ring,
}
