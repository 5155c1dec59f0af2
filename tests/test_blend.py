"""Networks between two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from common import random_weights
from liif_fast import Upscaler
from liif_fast.checkpoint import Architecture, load
from liif_fast.cli import app
from liif_fast.training.blend import blend

FIRST, SECOND = (random_weights(Architecture(1, 8, (16, 16)), seed=seed) for seed in (1, 2))


def test_ends_and_middle() -> None:
    assert blend(FIRST, SECOND, 0).fingerprint == FIRST.fingerprint
    assert blend(FIRST, SECOND, 1).fingerprint == SECOND.fingerprint
    found = blend(FIRST, SECOND, 0.25)
    for key, tensor in found.tensors.items():
        expected = (3 * FIRST.tensors[key].double() + SECOND.tensors[key].double()) / 4
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-7)
    assert found.metadata["recipe"] == (
        f"0.75 of {FIRST.name}, network {FIRST.fingerprint} and 0.25 of {SECOND.name}, network {SECOND.fingerprint}"
    )


def test_metadata_that_both_have_is_kept() -> None:
    first, second = (replace(w, metadata={"licence": "free", "data": w.fingerprint}) for w in (FIRST, SECOND))
    kept = blend(first, second, 0.5).metadata
    assert kept["licence"] == "free"
    assert "data" not in kept


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got"):
        blend(FIRST, SECOND, share)


def test_other_shapes() -> None:
    other = random_weights(Architecture(2, 8, (16,)))
    with pytest.raises(ValueError, match=r"n_resblocks 1 and 2, hidden_list \(16, 16\) and \(16,\)"):
        blend(FIRST, other, 0.5)


def test_command(tmp_path: Path) -> None:
    """What was measured for 8 bits is of the weights before."""
    out = tmp_path / "between.safetensors"
    words = ["blend", "edsr-baseline", "edsr-baseline", str(out), "--share", "0.3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{out}  0.7 of edsr-baseline, network ")
    made = load(out)
    assert made.quantized == {}
    assert made.name == "between"
    assert all(torch.equal(made.tensors[key], tensor) for key, tensor in load("edsr-baseline").tensors.items())
    assert Upscaler(made, device="cpu").precision != "int8"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    wrong = CliRunner().invoke(app, [*words[:3], str(tmp_path / "a.pth")])
    assert "must end in .safetensors" in wrong.stderr
