"""What the colour conversions refuse, and with what words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from liif_fast import yuv
from liif_fast.backends import BackendUnavailable

GOOD = {"yuv420p": [(4, 6), (2, 3), (2, 3)], "nv12": [(4, 6), (2, 3, 2)]}


def zeros(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.uint8) -> list[torch.Tensor]:
    return [torch.zeros(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": "yuv444p"}, "'yuv444p'"),
        ({"matrix": "rgb"}, "'rgb'"),
        ({"siting": "right"}, "'right'"),
        ({"planes": []}, r"got \[\]"),
        ({"planes": zeros([(4, 6), (2, 3)])}, r"\(2, 3\)"),
        ({"planes": zeros([(4, 6), (2, 3), (2, 2)])}, r"\(2, 2\)"),
        ({"planes": zeros([(4, 6, 1), (2, 3), (2, 3)])}, r"\(4, 6, 1\)"),
        ({"planes": zeros([(0, 6), (0, 3), (0, 3)])}, "height of 0"),
        (
            {"planes": [torch.zeros(4, 12, dtype=torch.uint8)[:, ::2], *zeros(GOOD["yuv420p"][1:])]},
            r"strides of \(12, 2\)",
        ),
        (
            {
                "planes": [torch.zeros(4, 6, dtype=torch.uint8), torch.zeros(2, 2, 3, dtype=torch.uint8).mT],
                "format": "nv12",
            },
            "strides",
        ),
        ({"planes": [*zeros(GOOD["yuv420p"][:2]), torch.zeros(2, 3, dtype=torch.uint8, device="meta")]}, "meta"),
        ({"out": torch.zeros(3, 4, 5)}, r"\[3, 4, 6\], got \(3, 4, 5\)"),
        ({"out": torch.zeros(3, 4, 6, device="meta")}, "meta"),
        ({"scale": (1, 1)}, "scale"),
        ({"shift": (0, float("nan"), 0)}, "nan"),
        ({"dtype": torch.uint8, "scale": (2, 2, 2)}, "uint8"),
    ],
)
def test_values_refused(changes: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {"planes": zeros(GOOD["yuv420p"]), "format": "yuv420p", **changes}
    with pytest.raises(ValueError, match=text):
        yuv.to_rgb(**given)


def test_types_refused() -> None:
    with pytest.raises(TypeError, match=r"uint16.*uint8"):
        yuv.to_rgb(zeros(GOOD["yuv420p"]), "yuv420p10le")
    with pytest.raises(TypeError, match="float64"):
        yuv.to_rgb(zeros(GOOD["yuv420p"]), "yuv420p", dtype=torch.float64)
    with pytest.raises(TypeError, match="int32"):
        yuv.from_rgb(torch.zeros(3, 4, 6, dtype=torch.int32), "yuv420p")
    with pytest.raises(ValueError, match=r"\(4, 6, 3\)"):
        yuv.from_rgb(torch.zeros(4, 6, 3), "yuv420p")
    with pytest.raises(ValueError, match=r"\(2, 6\)"):
        yuv.from_rgb(torch.zeros(3, 4, 6), "yuv420p", out=zeros([(2, 6), (1, 3), (1, 3)]))
    with pytest.raises(ValueError, match="'yuv444p'"):
        yuv.from_rgb(torch.zeros(3, 4, 6), "yuv444p")


def test_numbers_that_are_negated_as_they_are_read() -> None:
    negated = torch.complex(torch.zeros(3, 4, 6), -torch.rand(3, 4, 6)).conj().imag
    assert negated.is_neg()
    wanted = yuv.from_rgb(negated.resolve_neg(), "yuv420p")
    assert all(torch.equal(*pair) for pair in zip(yuv.from_rgb(negated, "yuv420p"), wanted, strict=True))
    with pytest.raises(ValueError, match="resolve_neg"):
        yuv.to_rgb(zeros(GOOD["yuv420p"]), "yuv420p", out=negated)


def test_memory_that_is_not_aligned_is_refused() -> None:
    crooked = torch.zeros(4 * 72 + 1, dtype=torch.uint8)
    numbers = torch.from_numpy(np.frombuffer(crooked.numpy(), np.float32, count=72, offset=1)).view(3, 4, 6)
    with pytest.raises(ValueError, match=r"float32 at address 0x[0-9a-f]+ is not aligned"):
        yuv.to_rgb(zeros(GOOD["yuv420p"]), "yuv420p", out=numbers)


def test_other_devices_are_refused() -> None:
    planes = [torch.zeros(shape, dtype=torch.uint8, device="meta") for shape in GOOD["nv12"]]
    with pytest.raises(BackendUnavailable, match="not on meta"):
        yuv.to_rgb(planes, "nv12")
