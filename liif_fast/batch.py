"""From the words of the command line to jobs: which pictures, how large, and where each result goes."""

from __future__ import annotations

import glob
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .output import SUFFIXES, Format, ImageError, check_output

if TYPE_CHECKING:
    import numpy as np

    from .field import Box

# What is taken from a folder. A file that is named is read whatever its suffix.
INPUT_SUFFIXES = (*SUFFIXES, ".gif", ".jpe", ".jfif", ".mpo")
DEFAULT_SCALE = "4"

_JPEG_TOO = (".jpe", ".jfif", ".mpo")  # suffixes of JPEGs that results do not take
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Request:
    """The size asked for: exactly one of scale, longest, fit, or one or both of width and height."""

    scale: tuple[float, float] | None  # (vertical, horizontal)
    longest: int | None
    width: int | None
    height: int | None
    box: Box | None
    tag: str  # what it adds to a file name
    fit: tuple[int, int] | None = None  # (width, height)

    @classmethod
    def parse(
        cls,
        scale: str | None = None,
        size: str | None = None,
        longest: int | None = None,
        width: int | None = None,
        height: int | None = None,
        box: str | None = None,
        fit: str | None = None,
    ) -> Request:
        """From the options as typed. ValueError that names the option."""
        for name, pixels in (("--longest", longest), ("--width", width), ("--height", height)):
            if pixels is not None and pixels < 1:
                raise ValueError(f"{name} must be at least 1 pixel, got {pixels}")
        sides = " and ".join(name for name, v in (("--width", width), ("--height", height)) if v)
        others = (("--scale", scale), ("--size", size), ("--longest", longest), ("--fit", fit))
        given = [name for name, v in others if v is not None]
        given += [sides] if sides else []
        if len(given) > 1:
            raise ValueError(f"give one size: {' or '.join(given)}")
        factors, frame = None, None
        if size is not None:
            width, height = size_of(size, "--size")
        if fit is not None:
            frame = size_of(fit, "--fit")
            tag = f"fit_{frame[0]}x{frame[1]}"
        elif width and height:
            tag = f"{width}x{height}"
        elif longest or width or height:
            tag = f"{longest}px" if longest else f"{width}w" if width else f"{height}h"
        else:
            across, down = _factors(scale or DEFAULT_SCALE)
            factors = (down, across)
            tag = f"x{across:g}" if across == down else f"x{across:g}x{down:g}"
        window = None if box is None else _box(box)
        return cls(factors, longest, width, height, window, tag if window is None else f"crop_{tag}", frame)

    @property
    def stretches(self) -> bool:
        """Whether a picture may get another shape."""
        down, across = self.scale or (1, 1)
        return down != across or bool(self.width and self.height)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) of the result for a picture; ValueError where there is none."""
        from . import grid

        top, left, bottom, right = grid.check_box(self.box, height, width)
        high, wide = bottom - top, right - left
        rows, columns = self.height, self.width
        if self.fit:
            factor = min(self.fit[0] / wide, self.fit[1] / high)
            rows, columns = max(1, round(high * factor)), max(1, round(wide * factor))
        if rows is None and columns is None:
            return grid.output_size(high, wide, scale=self.scale, longest=self.longest)
        rows = rows or max(1, round((columns or 0) * high / wide))
        columns = columns or max(1, round(rows * wide / high))
        return grid.output_size(high, wide, size=(rows, columns))

    def own_pixels(self, image: np.ndarray, target: tuple[int, int]) -> np.ndarray | None:
        """The window of [H, W, C] itself where its pixels are those of the target; a network would only blur them."""
        from . import grid

        top, left, bottom, right = grid.check_box(self.box, *image.shape[:2])
        if (bottom - top, right - left) != target or top % 1 or left % 1:
            return None
        return image[int(top) : int(bottom), int(left) : int(right)]

    def doubts(self, image: np.ndarray, target: tuple[int, int]) -> Iterator[str]:
        """What is said before such a picture is brought to the target."""
        from . import grid

        top, left, bottom, right = grid.check_box(self.box, *image.shape[:2])
        high, wide = bottom - top, right - left
        rows, columns = target
        becomes = f"{wide:g} x {high:g} becomes {columns} x {rows}"
        if rows + 0.5 < high or columns + 0.5 < wide:
            yield f"{becomes}: smaller, and the network is made to enlarge"
        kept = rows * wide / high
        if self.width and self.height and abs(columns - kept) > max(1, kept / 100):
            stretched = max(columns / kept, kept / columns)
            yield f"{becomes}, stretched by {stretched:.3g}; --fit {columns}x{rows} keeps the aspect"


@dataclass(frozen=True)
class Job:
    input: Path
    output: Path
    make_folder: bool = False  # one of several results; a misspelt path for a single one is refused instead
    quality: int | None = None

    @property
    def jpeg(self) -> bool:
        """Whether the input is one, by its name."""
        suffix = self.input.suffix.lower()
        return suffix in _JPEG_TOO or SUFFIXES.get(suffix) == SUFFIXES[".jpg"]


class Results:
    """Those that a run has made. Paths do not tell them apart where Photo.png and photo.png are one file."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], Job] = {}

    def check(self, job: Job) -> None:
        """ValueError where its result would replace another's."""
        with suppress(FileNotFoundError):
            if other := self._made.get(_identity(job.output)):
                raise ValueError(f"{other.input} and {job.input} would both be written to {job.output}")

    def add(self, job: Job) -> None:
        self._made[_identity(job.output)] = job


def _identity(path: Path) -> tuple[int, int]:
    """Of the file, whatever its name."""
    found = path.stat()
    return found.st_dev, found.st_ino


class _Found(NamedTuple):
    """A picture, its name in a folder of results, and whether that very picture was named."""

    path: Path
    relative: Path
    named: bool


def plan(
    inputs: list[str],
    output: str | None,
    tag: str,
    suffix: str | None = None,
    recursive: bool = False,
    skip_existing: bool = False,
    quality: int | None = None,
) -> list[Job]:
    """Every picture with the place of its result; UserWarnings say what is left out.

    Among several results a quality is for the formats that have one.

    Left out are results of earlier runs at the same size among the inputs: those that a pattern finds beside their
    pictures, and with ``skip_existing`` all. ValueError or FileNotFoundError for inputs that are not there, and for
    results in the place of an input or of each other.
    """
    if suffix is not None:
        suffix = suffix.lower() if suffix.startswith(".") else f".{suffix.lower()}"
        if suffix not in SUFFIXES:
            raise ImageError(f"--suffix {suffix} names no output format, which are {', '.join(SUFFIXES)}")
    if output is None and any(os.path.isdir(word) for word in inputs):
        raise ValueError("a folder of pictures needs -o FOLDER for the results")
    found, several = _find(inputs, recursive, Path(output) if output else None)
    into = output is not None and (several or output.endswith(("/", os.sep)) or os.path.isdir(output))
    file = output is not None and (os.path.isfile(output) or os.path.splitext(output)[1].lower() in SUFFIXES)
    if output is not None and several and file and not os.path.isdir(output):
        raise ValueError(f"{output}: several pictures need a folder, which this is not")
    if output is not None and not into and suffix and SUFFIXES.get(Path(output).suffix.lower()) != SUFFIXES[suffix]:
        raise ValueError(f"{output} and --suffix {suffix} name different formats")

    def place(one: _Found, stem: str) -> Path:
        path = one.path
        other = ".jpg" if path.suffix.lower() in _JPEG_TOO else ".png"
        ending = suffix or (path.suffix if path.suffix.lower() in SUFFIXES else other)
        if output is None:
            return path.with_name(f"{stem}_{tag}{ending}")
        return Path(output) / one.relative.with_name(f"{stem}{ending}") if into else Path(output)

    places = {one: place(one, one.path.stem) for one in found}
    made = {os.path.realpath(result): one for one, result in places.items() if result != one.path}
    for one in found:
        maker = made.get(os.path.realpath(one.path), one)
        if maker is not one and (skip_existing or not (one.named or output)):
            del places[one]
    if left_out := [str(one.path) for one in found if one not in places]:
        warnings.warn(f"{_few(left_out)} left out: results of other inputs", stacklevel=2)
    alike = Counter(os.path.normcase(result) for result in places.values())
    for one, result in places.items():  # photo.jpg beside photo.png
        if alike[os.path.normcase(result)] > 1 and one.path.suffix.lower() != result.suffix.lower():
            places[one] = place(one, one.path.name)
            if skip_existing and os.path.isfile(result):
                warnings.warn(f"{result} may be of {one.path}, whose result is {places[one]} now", stacklevel=2)
    formats = {one: SUFFIXES.get(result.suffix.lower()) for one, result in places.items()}
    some = any(format and format.quality is not None for format in formats.values())
    jobs = []
    for one, result in places.items():
        format = formats[one]
        own = None if some and format and format.quality is None else quality
        jobs.append(Job(one.path, result, into, own))
    _check_distinct(jobs)
    return jobs


def _find(words: list[str], recursive: bool, output: Path | None) -> tuple[list[_Found], bool]:
    """The pictures; whether the words mean several."""
    found: dict[str, _Found] = {}
    several = len(words) > 1
    for word in words:
        if not word:  # as of a variable that is not set; to the system it is the current folder
            raise FileNotFoundError("an input without a name: no such file")
        pattern = not os.path.lexists(word) and glob.has_magic(word)
        names = sorted(glob.glob(word, recursive=True)) if pattern else [word]
        names = [name for name in names if not (pattern and os.path.isdir(name))]
        if not names:
            raise FileNotFoundError(f"{word}: matches no file")
        several |= pattern
        for name in names:
            path = Path(name)
            if path.is_dir():
                several = True
                pictures = _pictures(path, recursive, output)
            elif pattern or path.exists():  # a dangling link of several is that picture's fault
                pictures = [path]
            else:
                raise FileNotFoundError(f"{name}: no such file")
            folder = path if path.is_dir() else path.parent
            for picture in pictures:
                one = _Found(picture, picture.relative_to(folder), path is picture and not pattern)
                # A link to another picture is one of its own.
                found.setdefault(os.path.join(os.path.realpath(picture.parent), picture.name), one)
    return list(found.values()), several


def _pictures(folder: Path, recursive: bool, output: Path | None) -> list[Path]:
    """Those in a folder, by name; a UserWarning for files that are none, FileNotFoundError where all are."""
    files = list(_walk(folder, recursive, output))
    pictures = [path for path in files if path.suffix.lower() in INPUT_SUFFIXES]
    if not pictures:
        deeper = "" if recursive else "; --recursive looks into its sub-folders"
        raise FileNotFoundError(f"{folder}: no picture in this folder{deeper}")
    if others := [path for path in files if path.suffix.lower() not in INPUT_SUFFIXES]:
        warnings.warn(f"{_few([str(path) for path in others])} left out: no format that is read", stacklevel=2)
    return pictures


def _few(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _walk(folder: Path, recursive: bool, output: Path | None) -> Iterator[Path]:
    """Files in a folder, by name; hidden ones and the folder of results are left out."""
    results = _identity(output) if output is not None and output.exists() else None

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        kept = (name for name in folders if not name.startswith("."))
        kept = (name for name in kept if results is None or _identity(Path(root, name)) != results)
        folders[:] = sorted(kept) if recursive else []
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _check_distinct(jobs: list[Job]) -> None:
    inputs = {os.path.realpath(job.input) for job in jobs}
    identities = set()
    for job in jobs:
        with suppress(OSError):  # said when its turn comes
            identities.add(_identity(job.input))  # hard links, and names that differ in what does not count there
    taken: dict[str, Job] = {}
    for job in jobs:
        place = os.path.realpath(job.output)
        try:
            same = _identity(job.output) in identities
        except OSError:
            same = False
        if same or place in inputs:
            raise ValueError(
                f"{job.output}: the result would replace an input; choose another -o, or --skip-existing "
                "for results of earlier runs"
            )
        other = taken.setdefault(os.path.normcase(place), job)
        if other is not job:
            raise ValueError(f"{other.input} and {job.input} would both be written to {job.output}")


@contextmanager
def folders(jobs: list[Job]) -> Iterator[None]:
    """Makes the folders of the results; those that stay empty go again."""
    made: list[Path] = []
    try:
        for folder in dict.fromkeys(job.output.parent for job in jobs if job.make_folder):
            missing = [place for place in (folder, *folder.parents) if not place.exists()]
            for place in reversed(missing):
                place.mkdir(exist_ok=True)
                made.append(place)
        yield
    finally:
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()


def check_folder(folder: Path) -> None:
    """FileNotFoundError and NotADirectoryError where there is no such folder."""
    if not folder.is_dir():
        problem = NotADirectoryError if folder.exists() else FileNotFoundError
        raise problem(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")


def check(jobs: list[Job], force: bool, lossless: bool) -> None:
    """Refuses results that cannot be written, as far as that is known before a picture is read."""
    exist = [job.output for job in jobs if job.output.is_file()]
    if exist and not force:
        more = f" (as do {len(exist) - 1} more)" if len(exist) > 1 else ""
        raise FileExistsError(f"{exist[0]}: exists already{more}; --force replaces it, --skip-existing leaves it")
    for job in jobs:
        check_output(job.output, (1, 1, 1), force=force, quality=job.quality, lossless=lossless)


def check_memory(path: Path, format: Format, shape: tuple[int, int, int]) -> None:
    """Refuses what would be too large to assemble, in the formats that are not written by rows."""
    if format.name in ("PNG", "TIFF"):
        return
    from . import memory

    need, free = 3 * math.prod(shape), memory.free()  # the picture, Pillow's copy, the encoded file
    if need > free:
        raise ImageError(
            f"{path}: {shape[1]} x {shape[0]} as {format.name} needs {need / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} are free; PNG and TIFF are written by rows"
        )


def count(text: str, option: str, base: int = 1000) -> int:
    """A number with an optional K, M, G or T, as ``800M``; ``base`` is 1000 or 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not (number := int(float(match[1]) * base ** _UNITS[match[2]])):
        raise ValueError(f"{option} must be a positive number such as 800M or 2G, got {text!r}")
    return number


def size_of(text: str, option: str) -> tuple[int, int]:
    """(width, height) as typed for ``option``, which a ValueError names."""
    match = re.fullmatch(r"(\d+)\s*[xX]\s*(\d+)", text.strip())
    if not match or not (int(match[1]) and int(match[2])):
        raise ValueError(f"{option} must be WIDTHxHEIGHT such as 3840x2160, got {text!r}")
    return int(match[1]), int(match[2])


def _factors(text: str) -> tuple[float, float]:
    """(across, down)"""
    try:
        numbers = [float(part) for part in re.split("[xX]", text)]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(math.isfinite(v) and v > 0 for v in numbers):
        raise ValueError(
            f"--scale must be a positive number such as 4 or 2.5, or WIDTHxHEIGHT such as 2x3, got {text!r}"
        )
    return numbers[0], numbers[-1]


def _box(text: str) -> Box:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise ValueError(f"--box must be TOP,LEFT,BOTTOM,RIGHT in pixels of the input, got {text!r}")
    return numbers[0], numbers[1], numbers[2], numbers[3]
