"""Compiles kernels for cards that are not there, as its own process: `python compiled.py JSON`, one job or more.

A job is [capability, kernel, type, widths, configuration]; what comes back, as JSON, is one dictionary of what its code
takes and holds each.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"
ZERO = -4.0  # of liif_fast.quantization.FP8


def of_type(name: str) -> str:
    """Of a kernel's argument, as Triton's launcher would find it."""
    if name.isupper():
        return "constexpr"
    if name.startswith(("scale_", "shift_")) or name in ("low", "high"):
        return "fp32"
    if name in (
        "z_columns",
        "z_rows",
        "z_wide",
        "rows",
        "columns",
        "x_size",
        "across",
        "tile_bits",
        "paired",
    ) or name.endswith("_stride"):
        return "i32"
    return "*i32" if name.endswith(("_index", "_first")) else "*fp32"


def build(capability: int, kernel: str, dtype: str, widths: list[int], config: list[int]) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = import_module(f"liif_fast.kernels.{kernel}")
    function = getattr(module, kernel)
    signature: dict[str, Any] = {name: of_type(name) for name in function.arg_names}
    signature |= {"z": f"*{dtype}", "out": "*u8"}
    more: dict[str, int] = {}
    if kernel.startswith("decode"):
        rows, chunk, warps, wide, resident, stages = config
        hidden, stored = len(widths) - 1, dtype if len(widths) > 1 else "fp32"
        signature |= {"first": f"*{stored}", "last": f"*{stored}"}
        if kernel == "decode":
            signature |= {"weights": (f"*{dtype}",) * hidden, "biases": ("*fp32",) * hidden}
        constants = {"CHANNELS": widths[0], "WIDTHS": tuple(widths), "SIDES": 2, "ROWS": rows, "CHUNK": chunk}
        constants |= {"WIDE": wide, "STAGES": stages}
        if kernel == "decode_fp8":
            signature |= {"blocks": "i32", "weights": ("*fp8e4nv",) * hidden, "steps": ("*fp32",) * hidden}
            del constants["STAGES"]
            constants |= {"RESIDENT": resident, "ZERO": ZERO}
            more = {"num_stages": 1}
    else:
        hidden, warps = 0, module.WARPS
        constants = {"FACTOR": 4, "TAPS": 8, "PIXELS": module.PIXELS}
    aligned = {(function.arg_names.index(name),) for name in ("z", "cell_term", "first", "last") if name in signature}
    tuples = [name for name in ("weights", "biases", "steps") if name in signature]
    aligned |= {(function.arg_names.index(name), i) for i in range(hidden) for name in tuples}
    source = ASTSource(function, signature, constants, {where: [["tt.divisibility", 16]] for where in aligned})
    options = {"num_warps": warps, "enable_fp_fusion": True, **more}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = made.asm["ptx"]
    return {
        **usage(made.asm["cubin"]),
        "shared": made.metadata.shared,
        "products": {name: ptx.count(name) for name in ("mma.sync", "wgmma.mma_async", "tcgen05.mma")},
        "copies": ptx.count("cp.async.cg"),
        "widened": ptx.count("cvt.f32.bf16"),
        "float8": len(re.findall(r"mma[^;\n]*(?:e4m3\.e4m3|kind::f8f6f4)", ptx)),
        "saturating": len(re.findall(r"cvt\.rn\.satfinite\.e4m3x2\.(?:f32|f16x2)", ptx)),
        "shuffles": ptx.count("shfl.sync"),
    }


def usage(cubin: bytes) -> dict[str, int]:
    """Registers of a thread and bytes of its stack, where spilled registers go; Hopper's products, begun together."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        called = [tool, "--dump-resource-usage", "--dump-sass", file.name]
        text = subprocess.run(called, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found, text
    begun, issued = text.count("WARPGROUP.ARRIVE"), text.count("HGMMA")
    return {"registers": int(found[1]), "stack": int(found[2]), "begun": begun, "issued": issued}


if __name__ == "__main__":
    print(json.dumps([build(*job) for job in json.loads(sys.argv[1])]))
