"""Compiles the encoder's kernels for cards that are not there, as its own process; prints JSON.

{"kernel capability": {"stack", "exact", "wide"}}: bytes of spilled registers, divisions as exact as PyTorch's, and
whole vectors of 16 bytes that are read.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

from compiled import usage

CAPABILITIES = (80, 86, 89, 90, 100, 120)
JOBS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "normalise": ({"image": "*u8", "out": "*bf16"}, {}),
    "finish": ({"made": "*fp16", "bias": "*fp32", "other": "*fp16"}, {"CHANNELS": 64, "OTHER": 64, "REPEAT": 1}),
}


def build(name: str, capability: int) -> dict[str, int]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = import_module(f"liif_fast.kernels.{name}")
    function = getattr(module, name)
    pointers, constants = JOBS[name]
    constants = {**constants, "VALUES": module.VALUES} | ({"RECTIFY": True} if name == "finish" else {})
    integers = {n: "i64" for n in function.arg_names if n.endswith("stride") or n in ("values", "columns", "cells")}
    types = {
        **dict.fromkeys(function.arg_names, "fp32"),
        **integers,
        **pointers,
        **dict.fromkeys(constants, "constexpr"),
    }
    aligned = {(function.arg_names.index(n),): [["tt.divisibility", 16]] for n in pointers if n != "image"}
    made = triton.compile(
        ASTSource(function, types, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": module.WARPS},
    )
    ptx = made.asm["ptx"]
    return {
        "stack": usage(made.asm["cubin"])["stack"],
        "exact": ptx.count("div.rn.f32"),
        "wide": ptx.count("ld.global.v4.b32"),
    }


if __name__ == "__main__":
    print(json.dumps({f"{name} {capability}": build(name, capability) for name in JOBS for capability in CAPABILITIES}))
