"""Training pictures that photographs lack: text, line art and flat graphics, drawn by Pillow.

The same kind, size and seed give the same picture, with the same version of Pillow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
_LETTERS = "kaletomisunleronthantigravelpolomarinesouchersstaldenwiquafiho"
_SYLLABLES = [_LETTERS[i : i + 1 + i % 3] for i in range(len(_LETTERS) - 2)]
_MARKS = [".", ",", ";", ":", "!", "?", "%", "&", "@", "#", "(a)", "[1]", "{x}", "+=", "->", "/", "\\", "*", "'s", '"']
_SMOOTH = 3  # drawn so many times as large and averaged, where edges are to be smooth


def pictures(count: int, size: tuple[int, int], seed: int) -> list[np.ndarray]:
    """``count`` pictures, uint8 [*size, 3], of all kinds in turn."""
    kinds = list(KINDS)
    return [make(kinds[i % len(kinds)], size, seed * 1_000_003 + i) for i in range(count)]


def make(kind: str, size: tuple[int, int], seed: int) -> np.ndarray:
    """A picture of a kind of `KINDS`, uint8 [height, width, 3]. ValueError for another kind or an empty size."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    height, width = size
    if min(size) < 1:
        raise ValueError(f"size (height, width) must be at least 1 x 1, got {size}")
    chance = random.Random(f"{kind} {seed}")
    # A fifth is drawn pixel by pixel, as screens are.
    enlarge = 1 if chance.random() < 0.2 else _SMOOTH
    image = Image.new("RGB", (width * enlarge, height * enlarge), _color(chance))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "L" if enlarge > 1 or chance.random() < 0.5 else "1"
    KINDS[kind](draw, image, chance, enlarge)
    return np.array(image.reduce(enlarge))


def _text(draw: ImageDraw.ImageDraw, image: Image.Image, chance: random.Random, unit: int) -> None:
    """Columns of lines in one size each, on paper or on coloured blocks, some of them turned."""
    width, height = image.size
    back = chance.choice([(255, 255, 255), (250, 246, 235), (20, 20, 24), _color(chance)])
    draw.rectangle((0, 0, width, height), back)
    top = 0
    while top < height:
        size = chance.choice([8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 30, 36, 48, 60])
        font = ImageFont.load_default(size * unit)
        paint = _contrast(back, chance)
        depth = int(size * unit * chance.choice([1, 2, 3, 5, 8]) * 1.25)
        if chance.random() < 0.25:
            back_here = _color(chance)
            draw.rectangle((0, top, width, top + depth), back_here)
            paint = _contrast(back_here, chance)
        stroke = chance.choice([0, 0, 0, 0, max(1, size * unit // 24)])
        leading = int(size * unit * chance.choice([1.1, 1.25, 1.5]))
        left = chance.randrange(max(1, width // 6))
        for y in range(top, top + depth, leading):
            draw.text((left, y), _line(chance, 2 * width // (size * unit) + 2), paint, font, stroke_width=stroke)
        top += depth
    if chance.random() < 0.3:
        corner = image.getpixel((0, 0))
        turned = image.rotate(chance.uniform(-12, 12), Image.Resampling.BICUBIC, fillcolor=corner)
        image.paste(turned)


def _lines(draw: ImageDraw.ImageDraw, image: Image.Image, chance: random.Random, unit: int) -> None:
    """Hatching, rings, fans, grids in perspective and free curves, in thin strokes."""
    width, height = image.size
    back = chance.choice([(255, 255, 255), (245, 240, 225), (15, 20, 40), _color(chance)])
    draw.rectangle((0, 0, width, height), back)
    for _ in range(chance.randint(6, 12)):
        paint, stroke = _contrast(back, chance), max(1, round(unit * chance.choice([0.7, 1, 1, 1.5, 2, 4])))
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        reach = chance.uniform(0.1, 0.6) * min(width, height)
        step = unit * chance.choice([2.5, 3, 4, 6, 9, 14])
        figure = chance.choice(["hatch", "rings", "fan", "bricks", "curve", "curve"])
        if figure == "hatch":
            angle = chance.uniform(0, math.pi)
            along, across = (math.cos(angle) * reach, math.sin(angle) * reach), (-math.sin(angle), math.cos(angle))
            for i in range(int(2 * reach / step)):
                offset = i * step - reach
                cx, cy = x + across[0] * offset, y + across[1] * offset
                draw.line((cx - along[0], cy - along[1], cx + along[0], cy + along[1]), paint, stroke)
        elif figure == "rings":
            flat = chance.uniform(0.4, 1)
            for i in range(1, int(reach / step)):
                draw.ellipse(
                    (x - i * step, y - i * step * flat, x + i * step, y + i * step * flat), None, paint, stroke
                )
        elif figure == "fan":
            count = chance.choice([24, 36, 60, 90])
            for i in range(count):
                angle = 2 * math.pi * i / count
                draw.line((x, y, x + reach * math.cos(angle), y + reach * math.sin(angle)), paint, stroke)
        elif figure == "bricks":
            lean, shrink = chance.uniform(-0.3, 0.3), chance.uniform(0.9, 1)
            row, top = step * 1.5, y - reach
            while row > 1.5 * unit and top < y + reach:
                draw.line((x - reach, top, x + reach, top + lean * reach), paint, stroke)
                for i in range(int(2 * reach / (2 * row))):
                    left = x - reach + (2 * i + (i % 2) * 0.3) * row
                    draw.line((left, top, left + lean * row, top + row), paint, stroke)
                top, row = top + row, row * shrink
        else:
            points = []
            for i in range(60):
                turn = i / 59 * chance.choice([1, 1, 1.001]) * 2 * math.pi
                wave = 1 + 0.4 * math.sin(3 * turn + x) + 0.2 * math.sin(7 * turn + y)
                points.append((x + reach * wave * math.cos(turn), y + reach * wave * math.sin(turn)))
            draw.line(points, paint, stroke, joint="curve")


def _graphics(draw: ImageDraw.ImageDraw, image: Image.Image, chance: random.Random, unit: int) -> None:
    """Panels, buttons, charts, checks, gradients, outlined shapes: what screens and signs are made of."""
    width, height = image.size
    palette = [_color(chance) for _ in range(5)] + [(255, 255, 255), (0, 0, 0)]
    for _ in range(chance.randint(14, 26)):
        w, h = (chance.uniform(0.05, 0.5) * side for side in (width, height))
        x, y = (int(chance.uniform(-0.2, 1) * side) for side in (width, height))
        box = (x, y, x + w, y + h)
        fill, edge = chance.sample(palette, 2)
        stroke = unit * chance.choice([0, 1, 1, 2, 3, 5])
        figure = chance.choice(["panel", "panel", "ellipse", "polygon", "bars", "checks", "ramp", "label", "rules"])
        if figure == "panel":
            draw.rounded_rectangle(box, chance.choice([0, 0, 4, 8, 16]) * unit, fill, edge, stroke)
        elif figure == "ellipse":
            draw.ellipse(box, fill, edge, stroke)
        elif figure == "polygon":
            corners, inner = chance.choice([3, 5, 6, 8]), chance.choice([0.45, 0.7, 1])
            star = [
                (x + w * (1 if i % 2 else inner) * math.cos(a) / 2, y + w * (1 if i % 2 else inner) * math.sin(a) / 2)
                for i in range(2 * corners)
                for a in [math.pi * i / corners]
            ]
            draw.polygon(star, fill, edge, max(1, stroke))
        elif figure == "bars":
            step = unit * chance.choice([2, 3, 5, 8, 13])
            for i in range(int(w / step)):
                tall = h * chance.random()
                draw.rectangle((x + i * step, y + h - tall, x + (i + 0.6) * step, y + h), edge)
        elif figure == "checks":
            step = unit * chance.choice([1, 2, 3, 4, 8])
            columns, rows = min(60, int(w / step)), min(60, int(h / step))
            for i in range(columns * rows):
                left, top = x + i % columns * step, y + i // columns * step
                draw.rectangle((left, top, left + step - 1, top + step - 1), (fill, edge)[(i + i // columns) % 2])
        elif figure == "ramp":
            for i in range(int(w)):
                mix = i / w
                shade = tuple(round(a + (b - a) * mix) for a, b in zip(fill, edge, strict=True))
                draw.line((x + i, y, x + i, y + h), shade)
        elif figure == "label":
            font = ImageFont.load_default(unit * chance.choice([9, 11, 13, 18, 28]))
            draw.text((x, y), _line(chance, 12), _contrast(fill, chance), font)
        else:
            for i in range(chance.randint(3, 12)):
                at = y + i * unit * chance.choice([3, 6, 10])
                draw.line((x, at, x + w, at), edge, unit)


KINDS: dict[str, Callable[[ImageDraw.ImageDraw, Image.Image, random.Random, int], None]] = {
    "text": _text,
    "lines": _lines,
    "graphics": _graphics,
}


def _color(chance: random.Random) -> Color:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _contrast(back: Color, chance: random.Random) -> Color:
    """A colour that can be told from ``back``, mostly black or white."""
    dark = sum(back) > 384
    if chance.random() < 0.6:
        return (0, 0, 0) if dark else (255, 255, 255)
    low, high = (0, 110) if dark else (150, 256)
    return chance.randrange(low, high), chance.randrange(low, high), chance.randrange(low, high)


def _line(chance: random.Random, length: int) -> str:
    """Words, numbers and marks of about ``length`` letters."""
    words: list[str] = []
    while sum(map(len, words)) < length:
        kind = chance.random()
        if kind < 0.7:
            word = "".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4)))
            words.append(
                word.capitalize() if chance.random() < 0.2 else word.upper() if chance.random() < 0.1 else word
            )
        elif kind < 0.85:
            words.append(f"{chance.randrange(10 ** chance.randint(1, 6)):,}")
        else:
            words.append(chance.choice(_MARKS))
    return " ".join(words)[: length + 8]
