"""Builds liif_fast._cpu: one binary with every instruction set the compiler knows, chosen among at run time."""

from __future__ import annotations

import platform
import re
import tempfile
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
ISA_FLAGS = {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512, "avx512bf16": [*AVX512, "-mavx512bf16"]}
# GCC 12 warns of its own AVX-512 headers.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
]


class BuildExt(build_ext):
    """Gives `*_<isa>.cpp` that suffix's flags, and leaves the file out where the compiler has no such flags."""

    def build_extensions(self) -> None:
        unix = self.compiler.compiler_type == "unix"
        compile_one = self.compiler._compile if unix else None
        for extension in self.extensions:
            flags = FLAGS if unix else ["/std:c++17", "/O2"]
            for isa in ISA_FLAGS:
                if unix and self.knows(isa):
                    extension.define_macros.append((f"LIIF_HAVE_{isa.upper()}", "1"))
                else:
                    extension.sources = [s for s in extension.sources if isa_of(s) != isa]
            extension.extra_compile_args = flags
            if unix:
                extension.extra_link_args = ["-pthread"]

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *ISA_FLAGS.get(isa_of(src), [])], pp_opts)

        if unix:
            self.compiler._compile = compile_with_isa
        super().build_extensions()

    def knows(self, isa: str) -> bool:
        if platform.machine().lower() not in ("x86_64", "amd64"):
            return False
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder) / "probe.cpp"
            probe.write_text("#include <immintrin.h>\nint main() { return 0; }\n")
            try:
                self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=ISA_FLAGS[isa])
            except Exception:
                return False
        return True


def isa_of(source: str) -> str:
    match = re.search(r"_([a-z0-9]+)\.cpp$", source)
    return match[1] if match and match[1] in ISA_FLAGS else ""


cpu = Pybind11Extension(
    "liif_fast._cpu",
    sorted(str(p) for p in Path("csrc/cpu").glob("*.cpp")),
    depends=[str(p) for p in Path("csrc").rglob("*.h")],
    cxx_std=17,
)
setup(ext_modules=[cpu], cmdclass={"build_ext": BuildExt})
