"""Drawn faces for the sample corpus: the expression carries the emotion, the actor everything else in the picture."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 96
_SCALE = 2  # drawn larger, then scaled down, so that small movements of a line show
_Colour = tuple[int, int, int]
_SKINS: tuple[_Colour, ...] = (
    (255, 224, 196), (241, 194, 160), (224, 172, 125), (198, 134, 92), (141, 85, 52), (92, 58, 40),
)  # fmt: skip
_HAIR: tuple[_Colour, ...] = (
    (30, 25, 22), (70, 45, 30), (120, 75, 40), (200, 160, 90), (170, 80, 45), (150, 150, 155),
)  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """Describe an expression by the places of a face's parts, relative to the face at rest; 1 is a strong movement."""

    brow_height: float = 0.0  # up
    brow_inner: float = 0.0  # inner ends up (worry) or down (anger)
    eye_open: float = 0.0
    mouth_curve: float = 0.0  # corners up
    mouth_width: float = 0.0
    mouth_open: float = 0.0
    lip_raise: float = 0.0  # upper lip up, folds beside the nose
    teeth: float = 0.0


EXPRESSIONS: Mapping[str, Expression] = {
    "NEU": Expression(),
    "HAP": Expression(0.2, 0.0, -0.3, 1.0, 0.7, 0.15, 0.0, 0.6),
    "SAD": Expression(-0.1, 0.9, -0.4, -0.9, -0.3, 0.0, 0.0, 0.0),
    "FEA": Expression(0.9, 0.6, 1.0, -0.3, 0.1, 0.6, 0.0, 0.1),
    "DIS": Expression(-0.4, -0.4, -0.6, -0.5, -0.1, 0.0, 1.0, 0.0),
    "ANG": Expression(-0.7, -1.0, 0.1, -0.4, 0.2, 0.1, 0.1, 1.0),
}


@dataclass(frozen=True)
class Look:
    """An actor's face at rest and the place it is filmed in."""

    skin: _Colour
    hair: _Colour
    hair_style: int
    face_width: float
    face_height: float
    eye_size: float
    eye_distance: float
    brow_weight: float
    nose: float
    glasses: bool
    beard: bool
    shirt: _Colour
    background: tuple[_Colour, _Colour]
    zoom: float
    offset: tuple[float, float]
    light: float
    at_rest: Expression


def draw_look(rng: np.random.Generator) -> Look:
    """Draw an actor's look."""
    rest = Expression(*(float(value) for value in rng.normal(0, 0.12, 5)))
    return Look(
        skin=_SKINS[rng.integers(len(_SKINS))],
        hair=_HAIR[rng.integers(len(_HAIR))],
        hair_style=int(rng.integers(4)),
        face_width=float(rng.uniform(0.25, 0.31)),
        face_height=float(rng.uniform(0.33, 0.39)),
        eye_size=float(rng.uniform(0.85, 1.15)),
        eye_distance=float(rng.uniform(0.105, 0.13)),
        brow_weight=float(rng.uniform(0.7, 1.4)),
        nose=float(rng.uniform(0.8, 1.3)),
        glasses=bool(rng.random() < 0.25),
        beard=bool(rng.random() < 0.25),
        shirt=_any_colour(rng),
        background=(_any_colour(rng), _any_colour(rng)),
        zoom=float(rng.uniform(1.2, 1.4)),
        offset=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.05, -0.01))),
        light=float(rng.uniform(0.85, 1.1)),
        at_rest=rest,
    )


def blend_expression(first: Expression, second: Expression, weight: float) -> Expression:
    """Return the expression between two: `weight` 0 gives the first, 1 the second, above 1 goes beyond it."""
    return Expression(
        *(
            getattr(first, field.name) + weight * (getattr(second, field.name) - getattr(first, field.name))
            for field in fields(Expression)
        )
    )


def draw_clip(
    expression: Expression, look: Look, talking: NDArray[np.float64], rng: np.random.Generator
) -> list[Image.Image]:
    """Draw the frames of one clip.

    Args:
        expression: What the face shows.
        look: Whose face it is.
        talking: How far speech opens the mouth in each frame, shape (frames,), in [0, 1].
        rng: Source of position, movement, lighting and noise.

    Returns:
        RGB images of 96 x 96 pixels, one per frame.
    """
    moment = Expression(*(getattr(expression, f.name) + rng.normal(0, 0.12) for f in fields(Expression)))
    tilt, sway, phase = rng.normal(0, 3.0), rng.uniform(0.5, 2.5), rng.uniform(0, 6)
    offset = np.array(look.offset) + rng.normal(0, 0.012, 2)
    zoom = look.zoom * rng.uniform(0.95, 1.05)
    light = look.light * rng.uniform(0.9, 1.1)
    side_light = rng.uniform(-0.2, 0.2)
    blink = rng.integers(len(talking)) if rng.random() < 0.5 else -1
    shade = light * (1 + side_light * np.linspace(-1, 1, SIZE))[None, :, None]
    noise = rng.normal(0, 4.0, (SIZE, SIZE, 1))
    images = []
    for number, opening in enumerate(talking):
        swing = np.sin(phase + number * 0.5)
        image = _draw_face(
            _with_speech(moment, float(opening), number == blink),
            look,
            tilt + sway * swing,
            zoom,
            (offset[0] + 0.006 * swing, offset[1] + 0.006 * np.cos(phase + number * 0.7)),
        )
        pixels = np.asarray(image, dtype=np.float64) * shade + np.roll(noise, 7 * number, axis=(0, 1))
        images.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return images


def _with_speech(expression: Expression, opening: float, blink: bool) -> Expression:
    values = {field.name: getattr(expression, field.name) for field in fields(Expression)}
    values["mouth_open"] = max(0.0, values["mouth_open"]) + 0.4 * opening
    if blink:
        values["eye_open"] = -2.0
    return Expression(**values)


def _draw_face(
    expression: Expression, look: Look, tilt: float, zoom: float, offset: tuple[float, float]
) -> Image.Image:
    """Draw on a canvas of unit size; y grows downwards and the face is centred on (0.5, 0.52)."""
    face = _Canvas(SIZE * _SCALE, zoom, offset)
    _draw_background(face, look)
    _draw_head(face, look)
    brow = {name: getattr(expression, name) + getattr(look.at_rest, name) for name in ("brow_height", "brow_inner")}
    for side in (-1, 1):
        _draw_eye(
            face, look, side, expression.eye_open + look.at_rest.eye_open, brow["brow_height"], brow["brow_inner"]
        )
    _draw_nose(face, look, expression.lip_raise)
    _draw_mouth(face, look, expression)
    small = face.image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return small.rotate(tilt, Image.Resampling.BILINEAR, fillcolor=look.background[0])


class _Canvas:
    """An image with drawing calls in unit coordinates, zoomed around its centre and shifted."""

    def __init__(self, size: int, zoom: float, offset: tuple[float, float]) -> None:
        self.image = Image.new("RGB", (size, size))
        self.draw = ImageDraw.Draw(self.image)
        self.size = size
        self.scale = size * zoom
        self.shift = tuple(float(size * (0.5 - 0.5 * zoom + part)) for part in offset)

    def point(self, x: float, y: float) -> tuple[float, float]:
        return self.scale * x + self.shift[0], self.scale * y + self.shift[1]

    def ellipse(self, x: float, y: float, width: float, height: float, fill: _Colour) -> None:
        """Ellipse by its centre and half axes."""
        self.draw.ellipse((*self.point(x - width, y - height), *self.point(x + width, y + height)), fill=fill)

    def polygon(self, points: list[tuple[float, float]], fill: _Colour) -> None:
        self.draw.polygon([self.point(*point) for point in points], fill=fill)

    def line(self, points: list[tuple[float, float]], fill: _Colour, width: float) -> None:
        pixels = max(1, round(width * self.scale))
        self.draw.line([self.point(*point) for point in points], fill=fill, width=pixels, joint="curve")


def _draw_background(face: _Canvas, look: Look) -> None:
    first, second = look.background
    face.draw.rectangle((0, 0, face.size, face.size), fill=first)
    face.draw.rectangle((0, face.size * 0.62, face.size, face.size), fill=second)
    face.ellipse(0.5, 1.08, 0.42, 0.24, look.shirt)
    face.polygon([(0.42, 0.75), (0.58, 0.75), (0.6, 0.92), (0.4, 0.92)], _shade(look.skin, 0.82))


def _draw_head(face: _Canvas, look: Look) -> None:
    width, height = look.face_width, look.face_height
    if look.hair_style == 1:  # long
        face.ellipse(0.5, 0.52, width * 1.25, height * 1.15, look.hair)
    for side in (-1, 1):
        face.ellipse(0.5 + side * width, 0.53, 0.035, 0.06, _shade(look.skin, 0.9))
    if look.hair_style != 3:
        face.ellipse(0.5, 0.44, width * 1.08, height * 0.98, look.hair)
    face.ellipse(0.5, 0.54, width, height * 0.94, look.skin)
    if look.hair_style == 2:  # fringe
        face.polygon(
            [(0.5 - width * 0.9, 0.36), (0.5, 0.2), (0.5 + width * 0.9, 0.36), (0.5 + width * 0.2, 0.3)], look.hair
        )
    if look.beard:
        face.ellipse(0.5, 0.54 + height * 0.62, width * 0.72, height * 0.34, look.hair)
        face.ellipse(0.5, 0.54 + height * 0.38, width * 0.62, height * 0.3, look.skin)


def _draw_eye(face: _Canvas, look: Look, side: int, openness: float, height: float, inner: float) -> None:
    x, y = 0.5 + side * look.eye_distance, 0.47
    width = 0.06 * look.eye_size
    opening = max(0.004, 0.034 * look.eye_size * (1 + 0.7 * openness))
    face.ellipse(x, y, width + 0.006, opening + 0.007, _shade(look.skin, 0.6))
    face.ellipse(x, y, width, opening, (245, 245, 245))
    if opening > 0.008:
        face.ellipse(x, y, min(0.027, opening), min(0.027, opening), (40, 30, 30))
    brow_y = y - 0.085 - 0.035 * height
    ends = [
        (x - side * 0.065, brow_y - 0.055 * inner),
        (x, brow_y - 0.012),
        (x + side * 0.065, brow_y + 0.03 * inner),
    ]
    colour = look.hair if sum(look.hair) + 60 < sum(look.skin) else _shade(look.skin, 0.5)
    face.line(ends, colour, 0.028 * look.brow_weight)
    if look.glasses:
        frame = face.point(x - 0.08, y - 0.055) + face.point(x + 0.08, y + 0.055)
        face.draw.ellipse(frame, outline=(25, 25, 25), width=3)
        face.line([(0.5 - 0.03, y), (0.5 + 0.03, y)], (25, 25, 25), 0.012)


def _draw_nose(face: _Canvas, look: Look, lip_raise: float) -> None:
    dark = _shade(look.skin, 0.72)
    tip = 0.6 - 0.012 * max(0.0, lip_raise)
    face.line([(0.5, 0.5), (0.5 + 0.022 * look.nose, tip), (0.5 - 0.012, tip + 0.008)], dark, 0.012)
    if lip_raise > 0.3:
        for side in (-1, 1):
            fold = [(0.5 + side * 0.045, tip - 0.02), (0.5 + side * 0.1, tip + 0.07)]
            face.line(fold, dark, 0.006 + 0.01 * lip_raise)
            face.line([(0.5 + side * 0.018, 0.46), (0.5 + side * 0.03, 0.5)], dark, 0.008 * lip_raise)


def _draw_mouth(face: _Canvas, look: Look, expression: Expression) -> None:
    curve = expression.mouth_curve + look.at_rest.mouth_curve
    width = 0.125 * (1 + 0.35 * (expression.mouth_width + look.at_rest.mouth_width))
    centre = 0.715
    steps = np.linspace(-1, 1, 13)
    middle = centre + 0.065 * curve * (0.5 - steps**2)
    round_off = np.sqrt(1 - steps**2)
    upper = middle - round_off * (0.008 + 0.012 * expression.mouth_open) - 0.03 * expression.lip_raise * (1 - steps**2)
    lower = middle + round_off * (0.014 + 0.085 * expression.mouth_open)
    xs = 0.5 + width * steps
    outline = list(zip(xs, upper, strict=True)) + list(zip(xs[::-1], lower[::-1], strict=True))
    inside = (70, 20, 25) if expression.mouth_open > 0.12 or expression.lip_raise > 0.5 else (150, 70, 70)
    face.polygon(outline, inside)
    if expression.teeth > 0.3:
        bottom = np.minimum(lower, upper + 0.02 + 0.015 * expression.teeth)
        teeth = list(zip(xs[2:-2], upper[2:-2], strict=True)) + list(
            zip(xs[2:-2][::-1], bottom[2:-2][::-1], strict=True)
        )
        face.polygon(teeth, (240, 238, 230))
    face.line(outline + outline[:1], _shade((190, 90, 90), 0.5 + 0.5 * look.skin[0] / 255), 0.012)


def _shade(colour: _Colour, factor: float) -> _Colour:
    return tuple(min(255, round(channel * factor)) for channel in colour)  # type: ignore[return-value]


def _any_colour(rng: np.random.Generator) -> _Colour:
    return tuple(int(channel) for channel in rng.integers(70, 190, 3))  # type: ignore[return-value]
