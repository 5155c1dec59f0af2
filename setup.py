"""Builds liif_fast._cpu: one binary with every instruction set the compiler knows, chosen among at run time.

And, where nvcc is, liif_fast._cuda; where nvcc cannot build it, as one too old, a warning says so and the rest is
installed. LIIF_FAST_CUDA=0 leaves it out, =1 insists on it, and LIIF_FAST_CUDA_ARCHS names other devices than those of
ARCHS ("90", "80 90").
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pybind11
from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
AVX512 += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # GCC 12 warns of its own headers
AVX512BF16 = [*AVX512, "-mavx512bf16"]
# GCC would order the loops of products so that their sums no longer fit into ARM's registers.
NEON = ["-fno-schedule-insns"]
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avxvnni": ["-mavx2", "-mfma", "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": AVX512BF16,
    "amx": [*AVX512BF16, "-mamx-tile", "-mamx-bf16"],
    "neon": NEON,
    "neonbf16": [*NEON, "-march=armv8.2-a+bf16"],
}
ISA_HEADERS = {"x86_64": "immintrin.h", "amd64": "immintrin.h", "aarch64": "arm_neon.h", "arm64": "arm_neon.h"}
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fno-strict-aliasing",  # scratch memory holds floats, then halves, then bytes
    "-g0",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
# Compute capabilities that code is made for. Machine code serves its own generation (that of 8.0 also 8.6 and 8.9), and
# PTX, which devices compile themselves, all later ones.
ARCHS = "80 90 120"
# Fused products would change results, see csrc/colors.h; without --exclude-libs PyTorch's CUDA runtime would answer for
# ours.
NVCC_FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-shared", "-cudart=static", "--threads=0"]
NVCC_FLAGS += ["-Xcompiler=-fPIC,-fvisibility=hidden,-g0", "-Xlinker=--exclude-libs,ALL"]


class BuildExt(build_ext):
    """Gives `*_<isa>.cpp` that suffix's flags, and leaves the file out where the compiler has no such flags."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type != "unix":
            raise CompileError(f"liif_fast needs GCC or Clang, not {self.compiler.compiler_type}")
        compile_one = self.compiler._compile
        for extension in self.extensions:
            for isa in ISA_FLAGS:
                if self.knows(isa):
                    extension.define_macros.append((f"LIIF_HAVE_{isa.upper()}", "1"))
                else:
                    extension.sources = [s for s in extension.sources if isa_of(s) != isa]
            extension.extra_compile_args = FLAGS
            extension.extra_link_args = ["-pthread"]

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *ISA_FLAGS.get(isa_of(src), [])], pp_opts)

        self.compiler._compile = compile_with_isa
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        if not ext.name.endswith("_cuda"):
            return super().build_extension(ext)
        asked = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True)
        known = asked.stdout.split()
        wanted = os.environ.get("LIIF_FAST_CUDA_ARCHS", ARCHS).split()
        archs = [arch for arch in wanted if f"sm_{arch}" in known]
        if not archs:
            raise CompileError(f"{nvcc} knows none of {wanted}; it knows {' '.join(known) or asked.stderr.strip()}")
        codes = [f"-gencode=arch=compute_{arch},code=[sm_{arch},compute_{arch}]" for arch in archs]
        includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_path("include"))]
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.spawn([nvcc, *NVCC_FLAGS, *codes, *includes, *ext.sources, "-o", str(target)])

    def knows(self, isa: str) -> bool:
        header = ISA_HEADERS.get(platform.machine().lower())
        if header is None or (header == "arm_neon.h") != isa.startswith("neon"):
            return False
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder) / "probe.cpp"
            probe.write_text(f"#include <{header}>\nint main() {{ return 0; }}\n")
            try:
                self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=ISA_FLAGS[isa])
            except Exception:
                return False
        return True


def isa_of(source: str) -> str:
    match = re.search(r"_([a-z0-9]+)\.cpp$", source)
    return match[1] if match and match[1] in ISA_FLAGS else ""


def find_nvcc() -> str | None:
    """nvcc, or None with a word about it. RuntimeError where it is asked for and not there."""
    asked = os.environ.get("LIIF_FAST_CUDA", "")
    if asked == "0":
        return None
    found = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
    if found is None and asked == "1":
        raise RuntimeError("LIIF_FAST_CUDA=1, but there is no nvcc on PATH or in /usr/local/cuda/bin")
    if found is None:
        print("liif_fast: no nvcc, so no CUDA code; videos' colours are converted on the processor", file=sys.stderr)
    return found


if sys.platform == "darwin":
    # Else Python of python.org has each file compiled for both kinds of Macs at once, whose instruction sets differ.
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
HEADERS = [str(p) for p in Path("csrc").rglob("*.h")]
cpu = Pybind11Extension(
    "liif_fast._cpu", sorted(str(p) for p in Path("csrc/cpu").glob("*.cpp")), depends=HEADERS, cxx_std=17
)
nvcc = find_nvcc() if os.name == "posix" else None
cuda = (
    [
        Extension(
            "liif_fast._cuda",
            ["csrc/cuda/bindings.cpp", "csrc/cuda/colors.cu"],
            depends=HEADERS,
            optional=os.environ.get("LIIF_FAST_CUDA") != "1",
        )
    ]
    if nvcc
    else []
)
setup(ext_modules=[cpu, *cuda], cmdclass={"build_ext": BuildExt})
