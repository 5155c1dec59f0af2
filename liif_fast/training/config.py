"""What a training run is: recipes, TOML files and flags -> `Config`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..architecture import DECODERS, Architecture

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS = "config.toml"  # in the folder of a run


@dataclass(frozen=True)
class Config:
    """One run. Defaults are the fast recipe; `RECIPES` has the paper's.

    Raises ValueError or TypeError where a value is of the wrong type or out of range.
    """

    output: str  # folder of the run: state, weights, log, curves
    data: tuple[str, ...] = ()  # folders of pictures, sub-folders included
    halves: bool = True  # also the pictures at half their size
    synthetic: int = 0  # pictures of text, line art and graphics, made at the start
    held_out: int = 8  # pictures of the data kept for validation
    init: str = ""  # model to begin from; empty: from nothing, with the shape that follows
    encoder: str = ""  # model whose encoder to begin with, of that shape; with init, whose decoder is fitted to it
    encoder_pace: float = 1.0  # of the learning rate, for the encoder; 0: it stays as it is
    n_resblocks: int = 16
    n_feats: int = 64
    relu_after_add: bool = False  # a ReLU after each residual block too
    decoder: str = "liif"  # or resample
    hidden_list: tuple[int, ...] = (256, 256, 256, 256)  # of LIIF's MLP, or of the resampler's taps
    local_ensemble: bool = True
    feat_unfold: bool = True
    cell_decode: bool = True
    iterations: int = 20_000
    batch: int = 16  # patches an iteration, over all processes
    patch: int = 48  # side of an LR patch
    places: int = 4  # random ones in a picture, of which a patch takes the one with the strongest edges
    queries: int = 512  # HR pixels a patch, for LIIF; the resampler learns from all
    scale_min: float = 1.0
    scale_max: float = 4.0
    jpeg: float = 0.0  # share of the patches that went through JPEG, in qualities between the next two
    jpeg_min: int = 30
    jpeg_max: int = 95
    film: float = (
        0.0  # share of the batches that went through H.264, as frames of a film, at a CRF between the next two
    )
    crf_min: int = 18
    crf_max: int = 33
    luma: float = 0.0  # share of the loss that is of luma, which eyes and PSNR of Y see; the rest is of the colours
    optimizer: str = "muon"  # or adam
    lr: float = 5e-3
    schedule: str = "cosine"  # to zero; or halving, five times over the run, as in the paper
    warmup: int = 100
    clip: float = 1.0  # norm of the gradient; 0: unlimited
    ema: float = 0.999  # 0: none
    centred: bool = True  # a layer's weights move without its mean output
    revive_every: int = 200  # iterations after which silent channels of the encoder begin anew; 0: never
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"  # of the products: fp32, bf16 (autocast), or whichever is faster there
    threads: int = 0  # 0: PyTorch's own number
    validate_every: int = 500
    save_every: int = 100
    log_every: int = 20

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        for name in ("iterations", "batch", "patch", "places", "queries", "validate_every", "save_every", "log_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("synthetic", "held_out", "warmup", "clip", "revive_every", "threads"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "not negative")
        if not self.data:
            if not self.synthetic:
                raise ValueError("nothing to train on: --data FOLDER, --synthetic N, or both")
            more = f"more than held_out, {self.held_out}, as there is no other data"
            _require(self.synthetic > self.held_out, "synthetic", self.synthetic, more)
        _require(1 <= self.scale_min <= 16, "scale_min", self.scale_min, "1 to 16")
        _require(self.scale_min <= self.scale_max <= 16, "scale_max", self.scale_max, "scale_min to 16")
        _require(0 <= self.jpeg <= 1, "jpeg", self.jpeg, "0 to 1")
        _require(1 <= self.jpeg_min <= 100, "jpeg_min", self.jpeg_min, "1 to 100")
        _require(self.jpeg_min <= self.jpeg_max <= 100, "jpeg_max", self.jpeg_max, "jpeg_min to 100")
        _require(0 <= self.film <= 1, "film", self.film, "0 to 1")
        _require(0 <= self.crf_min <= 51, "crf_min", self.crf_min, "0 to 51")
        _require(self.crf_min <= self.crf_max <= 51, "crf_max", self.crf_max, "crf_min to 51")
        _require(0 <= self.encoder_pace <= 1, "encoder_pace", self.encoder_pace, "0 to 1")
        _require(0 <= self.luma <= 1, "luma", self.luma, "0 to 1")
        _require(0 < self.lr < 1, "lr", self.lr, "between 0 and 1")
        _require(0 <= self.ema < 1, "ema", self.ema, "0 to 1, without 1")
        for name, choices in CHOICES.items():
            _require(getattr(self, name) in choices, name, getattr(self, name), " or ".join(choices))

    def lr_at(self, iteration: int) -> float:
        """Learning rate of an iteration, the first being 0."""
        warm = min(1.0, (iteration + 1) / max(1, self.warmup))
        done = iteration / self.iterations
        decay = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 0.5 ** int(5 * done)
        return self.lr * warm * decay


CHOICES = {
    "decoder": DECODERS,
    "optimizer": ("muon", "adam"),
    "schedule": ("cosine", "halving"),
    "precision": ("auto", "fp32", "bf16"),
}

# The paper's (section 4.1 and the reference configuration), beside the defaults.
RECIPES: dict[str, dict[str, Any]] = {
    "fast": {},
    "paper": {
        "iterations": 1_000_000,
        "queries": 2304,
        "optimizer": "adam",
        "lr": 1e-4,
        "schedule": "halving",
        "warmup": 0,
        "clip": 0.0,
        "ema": 0.0,
        "centred": False,
        "revive_every": 0,
        "places": 1,
        "precision": "fp32",
        "halves": False,
    },
}


# The settings that are a network's own, also of one that a run begins from.
SHAPE = [f.name for f in dataclasses.fields(Architecture) if f.name in Config.__dataclass_fields__]
_TAPS = [32, 32]  # widths of a small function of two numbers


def read(recipe: str, path: Path | None, flags: Mapping[str, Any]) -> Config:
    """A recipe, over it a TOML file's values, over those the flags that are not None."""
    if recipe not in RECIPES:
        raise ValueError(f"no recipe named {recipe!r}: {' or '.join(RECIPES)}")
    values = dict(RECIPES[recipe])
    if path is not None:
        try:
            values |= tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a TOML file: {error}") from None
    named = {key: value for key, value in flags.items() if value is not None}
    values |= named
    known = {field.name for field in dataclasses.fields(Config)}
    if unknown := sorted(values.keys() - known):
        told = ", ".join(sorted(known - {"output"}))
        raise ValueError(f"unknown setting {unknown[0]!r}; known are {told}")
    if values.get("init") and (own := sorted(named.keys() & set(SHAPE))):
        raise ValueError(f"{own[0]} is that of {values['init']}, which the run begins from: leave it out, or init")
    if values.get("decoder") == "resample":
        values.setdefault("hidden_list", _TAPS)
    if "output" not in values:
        raise ValueError("no output: name the folder of the run")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    floats = {
        key: float(value)
        for key, value in values.items()
        if type(value) is int and Config.__dataclass_fields__[key].type == "float"
    }
    return Config(**{**values, **lists, **floats})


def to_toml(config: Config) -> str:
    """The settings but ``output``: the folder may move."""
    values = {key: value for key, value in dataclasses.asdict(config).items() if key != "output"}
    # Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _check_type(name: str, value: object, kind: object) -> None:
    if isinstance(value, tuple):
        element = int if name == "hidden_list" else str
        fits = str(kind).startswith("tuple") and all(type(v) is element for v in value)
    else:
        fits = type(value).__name__ == kind
    if not fits:
        raise TypeError(f"{name} is {value!r}, must be {str(kind).replace(', ...', '')}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, must be finite")


def _require(fits: bool, name: str, value: object, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{name} is {value!r}, must be {wanted}")
