"""The operator liif_fast::decode: what would leave its buffers is refused, in one line of reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import library

from common import BF16, CPU, FP32, Case, problem, spied
from liif_fast import grid, ops
from liif_fast.ops import Decoder
from liif_fast.pixels import output_range


def arguments(use: str = "cpu", **changes: Any) -> list[Any]:
    """Valid arguments of the operator, some replaced."""
    posed = problem(Case())
    decoder = Decoder(posed.weights, CPU, FP32, use)
    valid = {
        "z": posed.z,
        "y": [posed.y.index, posed.y.offset, posed.y.weight],
        "x": [posed.x.index, posed.x.offset, posed.x.weight],
        "paired": False,
        "layers": decoder.layers,
        "cell_term": torch.zeros(32),
        "scale": [0.5, 0.5, 0.5],
        "shift": [0.5, 0.5, 0.5],
        "low": 0.0,
        "high": 1.0,
        "backend": use,
        "threads": 2,
        "out": torch.empty(7, 13, 3),
    }
    assert changes.keys() <= valid.keys()
    return [change(valid[key]) if callable(change := changes.get(key)) else valid[key] for key in valid]


REFUSED = {
    "z is 2-D": (dict(z=lambda z: z[0]), ValueError, r"z must be \[H, W, C\].*\(7, 32\)"),
    "z channels are strided": (dict(z=lambda z: z[..., ::2]), ValueError, "z must be"),
    "z pixels are strided": (dict(z=lambda z: z[:, ::2]), ValueError, "z must be"),
    "z channels first": (dict(z=lambda z: z.permute(2, 0, 1)), ValueError, "z must be"),
    "z narrower than the layers": (dict(z=lambda z: z[..., :16].contiguous()), ValueError, None),
    "z has fewer rows": (dict(z=lambda z: z[:4]), ValueError, "y table points outside the 4 cells"),
    "z has fewer columns": (dict(z=lambda z: z[:, :6].contiguous()), ValueError, "x table points outside the 6 cells"),
    "z of another float": (dict(z=lambda z: z.half()), (TypeError, ValueError), None),
    "z of another storage than the layers": (dict(z=lambda z: z.bfloat16()), (TypeError, ValueError), None),
    "index of int64": (dict(y=lambda y: [y[0].long(), y[1], y[2]]), ValueError, "y table must be.*int64"),
    "offset of float64": (dict(x=lambda x: [x[0], x[1].double(), x[2]]), ValueError, "x table must be.*float64"),
    "weight too short": (dict(x=lambda x: [x[0], x[1], x[2][:, :12]]), ValueError, "x table must be"),
    "table is strided": (dict(x=lambda x: [x[0].T.contiguous().T, *x[1:]]), ValueError, "x table must be contiguous"),
    "negative index": (dict(y=lambda y: [y[0] - 1, *y[1:]]), ValueError, "y table points outside the 5 cells"),
    "index too large": (dict(x=lambda x: [x[0] + 1, *x[1:]]), ValueError, "x table points outside the 7 cells"),
    "three sides": (
        dict(y=lambda y: [t[[0, 1, 1]] for t in y], x=lambda x: [t[[0, 1, 1]] for t in x]), ValueError, "1 or 2 sides"
    ),
    "sides differ": (dict(x=lambda x: [t[:1] for t in x]), ValueError, "x table must be"),
    "table of two": (dict(x=lambda x: x[:2]), (TypeError, ValueError), None),
    "out is too small": (dict(out=lambda out: out[:6]), ValueError, r"out must be \(7, 13, 3\), got \(6, 13, 3\)"),
    "out has 4 channels": (dict(out=lambda _: torch.empty(7, 13, 4)), ValueError, "out must be"),
    "out of int32": (dict(out=lambda out: out.int()), TypeError, "uint8, uint16, float16 or float32, got torch.int32"),
    "out of bf16": (dict(out=lambda out: out.bfloat16()), TypeError, "got torch.bfloat16"),
    "points of unequal number": (
        dict(paired=lambda _: True, out=lambda _: torch.empty(13, 3)), ValueError, "out must be"
    ),
    "cell term too short": (dict(cell_term=lambda t: t[:16]), ValueError, r"cell_term must be float32 \[32\]"),
    "cell term of float64": (dict(cell_term=lambda t: t.double()), ValueError, "cell_term must be float32"),
    "cell term is strided": (dict(cell_term=lambda _: torch.zeros(64)[::2]), ValueError, None),
    "two scales": (dict(scale=lambda v: v[:2]), (TypeError, ValueError), None),
    "four shifts": (dict(shift=lambda v: [*v, 0.0]), (TypeError, ValueError), None),
    "unknown backend": (dict(backend=lambda _: "gpu"), ValueError, None),
    "layers missing": (dict(layers=lambda v: v[:3]), (TypeError, ValueError), None),
    "layer too wide": (
        dict(layers=lambda v: [*v[:2], torch.zeros(3, 272), v[3], torch.zeros(17, 32, 16, 1), torch.zeros(272)]),
        ValueError, "up to 256"
    ),
    "a layer without outputs": (
        dict(layers=lambda v: [*v[:2], v[2][:, :0].contiguous(), v[3], v[4][:0], v[5][:0]]), ValueError, None
    ),
    "a bias missing": (dict(layers=lambda v: v[:-1]), (TypeError, ValueError), None),
    "last layer too narrow": (dict(layers=lambda v: [*v[:2], v[2][:, :16].contiguous(), *v[3:]]), ValueError, None),
    "hidden bias too short": (dict(layers=lambda v: [*v[:-1], v[-1][:16].contiguous()]), ValueError, None),
    "layers in another storage": (
        dict(layers=lambda v: [*v[:4], v[4].bfloat16(), v[5]]), (TypeError, ValueError), None
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_would_leave_its_buffers(name: str) -> None:
    changes, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        torch.ops.liif_fast.decode(*arguments(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        dict(cell_term=lambda t: t.to("meta")),
        dict(y=lambda y: [y[0], y[1].to("meta"), y[2]]),
        dict(layers=lambda v: [*v[:3], v[3].to("meta"), *v[4:]]),
        dict(out=lambda out: out.to("meta")),
    ],
)
def test_refuses_addresses_of_another_device(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="z is on cpu, another on meta"):
        ops._decode(*arguments(**changes))  # PyTorch itself sends what has a meta tensor elsewhere


def test_no_device_is_asked_for_what_the_host_knew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The range of a table that was moved is known, also behind PyTorch's dispatcher."""
    positions = np.array([0.2, 3.7, 9.9])
    for table in (grid.axis(positions, 10), grid.taps(positions, 10, torch.ones_like)):
        index = table.index if isinstance(table, grid.Axis) else table.first
        away = table.to(torch.device("meta"))  # which has no numbers
        moved = away.index if isinstance(away, grid.Axis) else away.first
        assert grid.indices_in(moved) == (int(index.min()), int(index.max()))
    given = arguments()
    asked: list[torch.Tensor] = []
    known = grid.indices_in
    monkeypatch.setattr(grid, "indices_in", lambda table: asked.append(table) or known(table))
    torch.ops.liif_fast.decode(*given)
    assert [id(table) for table in asked] == [id(given[1][0]), id(given[2][0])]


@pytest.mark.parametrize(("dtype", "most"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_white_beyond_the_type_is_refused(dtype: torch.dtype, most: int) -> None:
    output_range((0.5,) * 3, (0.5,) * 3, dtype, most)
    with pytest.raises(ValueError, match=f"at most {most}, the largest {dtype}; got {most + 1}"):
        output_range((0.5,) * 3, (0.5,) * 3, dtype, most + 1)


def test_decoder_refuses_another_dtype() -> None:
    posed = problem(Case())
    decoder = Decoder(posed.weights, CPU, BF16, "cpu")
    with pytest.raises(TypeError, match=r"z is torch.float32 on cpu; this decoder was made for torch.bfloat16 on cpu"):
        decoder(posed.z, posed.y, posed.x, posed.cell, torch.empty(7, 13, 3))


def test_valid_arguments_are_valid() -> None:
    """What the refusals start from is not itself refused."""
    torch.ops.liif_fast.decode(*arguments())
    torch.ops.liif_fast.decode(*arguments("reference"))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_operator_is_sound(backend: str) -> None:
    """Schema, fake tensors and tracing, as PyTorch's own checker sees them."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    library.opcheck(torch.ops.liif_fast.decode.default, tuple(arguments(backend)), test_utils=checks)


def test_fake_tensors_reach_no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    asked = spied(monkeypatch)
    valid = arguments()
    with FakeTensorMode() as mode:
        fake = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, valid)
        torch.ops.liif_fast.decode(*fake)
    assert asked == []
