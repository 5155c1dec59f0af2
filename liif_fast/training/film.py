"""What the codec of a film leaves of pictures: patches in a few frames of H.264 (ITU-T H.264) that move on."""

from __future__ import annotations

import io
import math

import numpy as np
import torch

from .. import yuv

# Frames of a film, of which one is taken: keyframes, predicted ones and those between have faults of their own.
FRAMES = 4
# Pixels that a patch moves by from frame to frame, at most.
FASTEST = 3
_BLOCK = 16  # a macroblock
# Of films as short as these, its macroblock tree makes this or that: now and then it reads what nobody wrote.
_DETERMINISTIC = {"threads": "1", "x264-params": "mbtree=0"}
# What lies at least between a patch and the next in a frame, of its own border repeated: beyond filters and prediction.
_MARGIN = 12


def unavailable() -> str | None:
    """Why nothing can be coded, None if it can."""
    try:
        from av.codec import Codec

        Codec("libx264", "w")
    except ImportError:
        return "PyAV is not installed: pip install 'liif_fast[video]', which has it for Python 3.11 and later"
    except ValueError:
        return "this PyAV has no libx264"
    return None


def check(device: torch.device) -> None:
    """ValueError where a training on it cannot have films."""
    problem = unavailable()
    if device.type != "cpu":
        problem = f"a codec needs a processor, device is {device}: train with --device cpu"
    if problem:
        raise ValueError(f"patches of films (film) cannot be made: {problem}")


def filmed(picture: np.ndarray, crf: int) -> np.ndarray:
    """A picture, uint8 [H, W, 3], as the last frame of a film in which it moves to the right, pixel by pixel."""
    planes = torch.tensor(picture).permute(2, 0, 1)[None].float() / 255
    still = torch.zeros(1, 2, dtype=torch.int64)
    found = coded(planes, crf, FRAMES - 1, still, still + torch.tensor([0, 1]))
    return (found[0] * 255).round().byte().permute(1, 2, 0).numpy()


def coded(images: torch.Tensor, crf: int, frame: int, origin: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
    """Patches cut from a frame of a film by libx264, in 4:2:0 as the product reads it.

    Args:
        images: float32 [B, 3, H, W] in [0, 1], 8-bit values. Beyond a patch its border is repeated.
        crf: libx264's constant rate factor, 0 to 51.
        frame: which of the `FRAMES`, from 0.
        origin: int64 [B, 2], 0 to 15: rows and columns between the corner of a macroblock and that of the patch.
        velocity: int64 [B, 2]: pixels down and to the right that each moves by, from frame to frame.

    Returns as ``images``.
    """
    count, (height, width) = len(images), images.shape[2:]
    tall, wide = (math.ceil((side + _BLOCK + 2 * _MARGIN) / _BLOCK) * _BLOCK for side in (height, width))
    across = math.ceil(math.sqrt(count))
    corners = [(i // across * tall, i % across * wide) for i in range(count)]
    corner, moves = (origin + _MARGIN).tolist(), velocity.tolist()
    patches = (images * 255).round().to(torch.uint8)
    frames = torch.zeros(FRAMES, 3, math.ceil(count / across) * tall, across * wide, dtype=torch.uint8)
    for i, (top, left) in enumerate(corners):
        for time in range(FRAMES):
            rows, columns = (
                (torch.arange(long) - corner[i][axis] - moves[i][axis] * (time - frame)).clamp(0, side - 1)
                for axis, (long, side) in enumerate(((tall, height), (wide, width)))
            )
            frames[time, :, top : top + tall, left : left + wide] = patches[i][:, rows[:, None], columns]
    seen = _through(frames, crf)[frame]
    places = [(top + y, left + x) for (top, left), (y, x) in zip(corners, corner, strict=True)]
    return torch.stack([seen[:, y : y + height, x : x + width] for y, x in places]).float() / 255


def at_random(images: torch.Tensor, crfs: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """As `coded`, all in one film, a third of them at rest."""
    count, (low, high) = len(images), crfs
    crf, frame = torch.rand(2, generator=generator).tolist()
    origin, velocity = torch.rand(2, count, 2, generator=generator)
    moves = torch.rand(count, 1, generator=generator) < 2 / 3
    velocity = ((2 * velocity - 1) * (FASTEST + 0.5)).round() * moves
    chosen = round(low + (high - low) * crf), int(frame * FRAMES)
    return coded(images, *chosen, (origin * _BLOCK).long(), velocity.long())


def _through(frames: torch.Tensor, crf: int) -> list[torch.Tensor]:
    """Pictures, uint8 [T, 3, H, W], sides whole macroblocks, through libx264 and back."""
    import av

    file, wide = io.BytesIO(), frames.shape[3]
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), **_DETERMINISTIC})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], "yuv420p"
        for picture in frames:
            stored = [plane.numpy().reshape(-1, wide) for plane in yuv.from_rgb(picture, "yuv420p", threads=1)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.concatenate(stored), "yuv420p")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        container.streams.video[0].thread_count = 1
        arrays = [picture.to_ndarray(format="yuv420p") for picture in container.decode(video=0)]
    pictures, tall = [], frames.shape[2]
    for array in arrays:
        luma, cb, cr = (torch.from_numpy(part) for part in np.split(array, [tall, tall + tall // 4]))
        planes = luma, cb.reshape(tall // 2, -1), cr.reshape(tall // 2, -1)
        pictures.append(yuv.to_rgb(planes, "yuv420p", dtype=torch.uint8, threads=1))
    return pictures
