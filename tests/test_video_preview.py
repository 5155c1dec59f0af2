"""The strip of `liif-fast video --preview`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from liif_fast import Upscaler, video

av = pytest.importorskip("av")

from clips import film  # noqa: E402
from test_video_ends import MODEL, folder, run  # noqa: E402, F401


@pytest.mark.usefixtures("folder")
def test_a_strip_of_what_is_made() -> None:
    """Three frames of the part asked for: bicubic on the left, on the right the result itself, middles of both."""
    levels = [np.full((200, 340, 3), 10 * i, np.uint8) for i in range(24)]
    film("long.mkv", levels, codec="ffv1", format="yuv444p")
    part = ("--start", ".25", "--frames", 6)
    result = run("long.mkv", "out.mkv", "--scale", 2, *part, "--preview", "look.png")
    assert result.exit_code == 0, result.output
    made = list(video.upscale("long.mkv", scale=2, upscaler=Upscaler(MODEL, precision="fp32")))
    strip = np.asarray(Image.open("look.png"))
    assert strip.shape == (3 * 360, 2 * 640, 3)
    for row, number in zip(strip.reshape(3, 360, 1280, 3), (7, 9, 11), strict=True):
        assert np.abs(row[:, :640].astype(int) - 10 * number).max() <= 2
        assert np.array_equal(row[:, 640:], made[number][20:380, 20:660])
    again = run("in.mkv", "small.mkv", "--preview", "look.png")
    assert again.exit_code == 2
    assert "look.png: exists already" in again.stderr
    assert not Path("small.mkv").exists()
