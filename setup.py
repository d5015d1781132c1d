"""What is compiled, and how. Whatever needs no code is in pyproject.toml."""

from __future__ import annotations

import copy
import os
import platform
import sys
import sysconfig
from glob import glob
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension, include_paths

from find_cuda import NoCuda, prepare_cuda

# Without -fopenmp at::parallel_for is silently serial. Python adds -g, which doubles build times.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]
CXX_FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-fvisibility-inlines-hidden", *OPENMP]
# A compiler that may fuse a product with a sum does so in one copy of a loop and not in another: the number of threads
# chooses the copy, and would change the bits.
CXX_FLAGS += ["-ffp-contract=off"]
CXX_FLAGS += ["-Wall", "-Wno-psabi", *(f"-isystem{path}" for path in include_paths())]  # warn of our code alone

# The CPU kernels are compiled once for each of these; ce_ext loads the one that fits the machine.
ISA_FLAGS = {"default": ""}
if platform.machine() in ("x86_64", "AMD64"):
    ISA_FLAGS["avx2"] = "-mavx2 -mfma -mf16c"
    ISA_FLAGS["avx512"] = "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mf16c"
    ISA_FLAGS["avx512"] += " -Wno-uninitialized -Wno-maybe-uninitialized"  # GCC's intrinsics are to blame

try:
    CUDA_ARCHS, NO_CUDA = prepare_cuda(), ""
except NoCuda as reason:
    CUDA_ARCHS, NO_CUDA = "", str(reason)
    if os.environ.get("CE_EXT_CUDA") == "1":
        sys.exit(f"ce_ext: CE_EXT_CUDA=1, but {reason}")


def extension(name: str, sources: str, flags: str = "") -> Extension:
    make = CUDAExtension if name == "_cuda" else CppExtension
    return make(
        f"ce_ext.{name}",
        sorted(path for pattern in sources.split() for path in glob(f"csrc/{pattern}", recursive=True)),
        include_dirs=[os.path.abspath("csrc")],
        extra_compile_args={"cxx": CXX_FLAGS + flags.split(), "nvcc": ["-O3", "-lineinfo"]},
        extra_link_args=OPENMP,
    )


def max_jobs() -> int:
    """As many compilers as ninja would run at once, but each with 2 GiB of memory."""
    if jobs := os.environ.get("MAX_JOBS"):
        return int(jobs)
    if sys.platform != "linux":
        return os.cpu_count() or 1
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kib = int(meminfo["MemAvailable"].split()[0])
    return max(1, min(len(os.sched_getaffinity(0)) + 2, kib >> 21))


class Build(BuildExtension):
    """Builds the extensions side by side, each in an object folder of its own; that of CUDA before, with all cores."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # The default is a new folder for each editable install. Ninja follows changes of our
        # headers but not of torch's, hence the version.
        self.build_temp = f"build/{sys.implementation.cache_tag}-torch-{torch.__version__}"

    def run(self) -> None:
        package = Path(self.get_ext_fullpath("ce_ext._C")).parent
        for old in package.glob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            old.unlink()  # ce_ext would load a _cuda that this build leaves out
        super().run()
        built_with = f"TORCH = {str(torch.__version__)!r}\nCUDA_ARCHS = {CUDA_ARCHS!r}\nNO_CUDA = {NO_CUDA!r}\n"
        (package / "_built_with.py").write_text(built_with)

    def build_extensions(self) -> None:
        print(f"ce_ext: CPU kernels only: {NO_CUDA}" if NO_CUDA else f"ce_ext: CUDA {CUDA_ARCHS}")
        self.ext_map["ce_ext._C"].define_macros = [
            ("CE_EXT_VERSION", f'"{self.distribution.get_version()}"'),
            ("CE_EXT_CPU_ISAS", f'"{";".join(ISA_FLAGS)}"'),
            ("CE_EXT_CUDA_ARCHS", f'"{CUDA_ARCHS}"'),
        ]
        cuda = [ext for ext in self.extensions if ext.name == "ce_ext._cuda"]
        others = [ext for ext in self.extensions if ext.name != "ce_ext._cuda"]
        jobs = max_jobs()
        for self.extensions in filter(None, (cuda, others)):
            if self.use_ninja:
                self.parallel = max(1, min(len(self.extensions), jobs // 2))  # the longest does not end alone
                os.environ["MAX_JOBS"] = str(jobs // self.parallel)  # for each extension's ninja
            super().build_extensions()
        self.extensions = cuda + others

    def build_extension(self, ext: Extension) -> None:
        command = copy.copy(self)  # self is shared by one thread for each extension
        command.build_temp = f"{self.build_temp}/{ext.name}"
        super(Build, command).build_extension(ext)


extensions = [extension("_C", "ops.cpp host/*.cpp python/*.cpp")]
for isa, flags in ISA_FLAGS.items():
    macros = f"-DCPU_CAPABILITY={isa.upper()} -DCPU_CAPABILITY_{isa.upper()} "
    extensions.append(extension(f"_cpu_{isa}", "cpu/*.cpp", macros + flags))
if CUDA_ARCHS:
    extensions.append(extension("_cuda", "cuda/**/*.cu cuda/**/*.cpp"))

setup(ext_modules=extensions, cmdclass={"build_ext": Build})
