"""``liif-fast easier``: make a network shorter where its work is, training in between, while the quality lasts.

LIIF's work is its decoder, which loses rectifiers; a resampler's is its encoder, which loses residual blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from ..checkpoint import Weights, load, save
from ..output import write_text
from ..upscaler import Upscaler, find_device
from ..words import counted
from . import easier
from .config import SETTINGS, Config, to_toml
from .evaluate import evaluate
from .folder import WEIGHTS
from .log import check_library
from .state import STATE
from .train import Progress, load_data, train

UNITS = {"liif": "hidden layer", "resample": "residual block"}


@dataclass(frozen=True)
class Step:
    """One network on the way: its ``length``, a number of ``unit`` (of `UNITS`), mean PSNR on the held-out pictures and
    what it lost to the first."""

    length: int
    unit: str
    psnr: float
    loss: float
    kept: bool


def length(weights: Weights) -> int:
    """In the unit that its decoder has in `UNITS`."""
    a = weights.architecture
    return len(a.hidden_list) if a.decoder == "liif" else a.n_resblocks


def shorten(
    model: str,
    config: Config,
    max_loss: float,
    tell: Callable[[Progress], None],
    say: Callable[[str], None],
) -> list[Step]:
    """Shrinks ``model`` into ``config.output``, where every step trains in a folder of its own, and goes on there.

    Each step folds away the rectifier of least entropy, or drops the block whose absence costs least, and trains as
    ``config`` says; the first step that loses more than ``max_loss`` dB of PSNR ends it. The smallest network within
    the bound is ``model.safetensors`` there, even if it is the one that came. Raises as `train` and `load`; ValueError
    for a bound that is not positive; FileExistsError for a folder in which something else was begun.
    """
    if not max_loss > 0:
        raise ValueError(f"the loss allowed is {max_loss}, must be a positive number of dB")
    check_library()
    folder = Path(config.output)
    weights = load(model)
    settings = _settings(folder, weights, config)
    unit = UNITS[weights.architecture.decoder]
    device = find_device(config.device)
    pictures, pairs = load_data(config, device, say)
    if not pairs:
        raise ValueError("held_out is 0: without held-out pictures the loss of quality cannot be measured")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SETTINGS, settings)

    def quality(candidate: Weights) -> float:
        up = Upscaler(candidate, device=device, precision="fp32", threads=config.threads or None)
        return fmean(summary.psnr for summary in evaluate(up, pairs).values())

    first = quality(weights)
    steps = [Step(length(weights), unit, first, 0.0, True)]
    rectifiers = report(weights, pictures, folder / f"entropy-{length(weights)}.png", say)
    save(folder / WEIGHTS, weights, force=True)
    while length(weights) > 1:
        if unit == UNITS["liif"]:
            layer = easier.next_layer(rectifiers)
            shorter, done = easier.fold(weights, layer), f"rectifier {layer + 1} of the decoder folded away"
        else:
            without = [easier.drop_block(weights, block) for block in range(length(weights))]
            psnrs = [quality(candidate) for candidate in without]
            block = psnrs.index(max(psnrs))
            shorter, done = without[block], f"block {block + 1} of the encoder dropped ({psnrs[block]:.3f} dB)"
        run = folder / f"{unit.split()[-1]}s-{length(shorter)}"
        run.mkdir(exist_ok=True)
        start = run / "start.safetensors"
        save(start, shorter, force=True)
        say(f"{done}; training with {counted(length(shorter), unit)} in {run}")
        step_config = replace(config, output=str(run), init=str(start))
        resume = (run / STATE).exists()
        if not resume:  # but perhaps weights, of a sitting that ended before it kept a state
            (run / WEIGHTS).unlink(missing_ok=True)
        result = train(step_config, resume, tell, say)
        candidate = replace(load(result.weights), name=weights.name)
        psnr = quality(candidate)
        steps.append(Step(length(candidate), unit, psnr, first - psnr, first - psnr <= max_loss))
        rectifiers = report(candidate, pictures, folder / f"entropy-{length(candidate)}.png", say)
        if not steps[-1].kept:
            break
        weights = candidate
        save(folder / WEIGHTS, weights, force=True)
    return steps


def _settings(folder: Path, weights: Weights, config: Config) -> str:
    """What the folder is for, as text: a network and settings; how it computes may change from sitting to sitting.

    FileExistsError where it is for others.
    """
    settings = to_toml(replace(config, device="auto", threads=0))
    text = f"# {weights.name}, network {weights.fingerprint}\n{settings}"
    kept = folder / SETTINGS
    begun = [*folder.glob(f"*/{STATE}"), *folder.glob(STATE), *folder.glob(WEIGHTS)]
    if begun and (not kept.exists() or kept.read_text(encoding="utf-8") != text):
        raise FileExistsError(f"{begun[0]}: begun with another network or other settings; name another folder")
    return text


def report(
    weights: Weights, pictures: easier.Pictures, picture: Path, say: Callable[[str], None]
) -> list[easier.Rectifier]:
    """The entropy of every rectifier as lines, as a picture, and returned."""
    found = easier.measure(weights, pictures)
    say(f"{weights.name}: {weights.architecture.summary()}")
    say("rectifier    entropy  settled neurons  active")
    for r in found:
        say(f"{r.name:<12} {r.entropy:7.3f}  {r.fixed:15.0%}  {r.active:6.0%}")
    easier.draw(found, picture)
    say(f"picture: {picture}")
    return found
