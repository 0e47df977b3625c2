"""Builds the stand-in for the CUDA runtime, and says how a process is started on it, or why it cannot be built here."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch

HERE = Path(__file__).parent
SOURCE, SITE = HERE / "source", HERE / "site"
PACKAGES = Path(sysconfig.get_paths()["purelib"])
CUDA_HEADERS, TRITON_HEADERS = PACKAGES / "nvidia" / "cu13" / "include", PACKAGES / "triton" / "backends" / "nvidia" / "include"
FLAGS = ("-shared", "-fPIC", "-O1", "-w", "-fvisibility=hidden")
# What CUDA's own library answers without a device, and what only other uses of torch come to.
LEFT_TO_CUDA = re.compile(
    "__cuda(Push|Pop|Register|Unregister)|cudaGetError(Name|String)"
    "|cudaIpc|cudaLibrary|cudaMemPool|cudaDevice[GS]et(DefaultMemPool|GraphMem)|cudaGraph(AddNode|Conditional)"
)
NO_PRODUCT = re.compile(r"Set|Get|Create|Destroy|Init|Check")  # in the name of a function of cuBLAS


def obstacle() -> str:
    """Why the stand-in cannot be built here; empty if it can."""
    if not all(shutil.which(tool) for tool in ("gcc", "nm")):
        return "the stand-in for CUDA is built with gcc and nm, which are not here"
    if not (PACKAGES / "torch" / "lib" / "libtorch_cuda.so").is_file():
        return "torch was built without CUDA"
    if not str(torch.version.cuda).startswith("13."):
        return f"the stand-in has the functions of CUDA 13, and torch uses {torch.version.cuda}"
    if not (CUDA_HEADERS / "cuda_runtime_api.h").is_file() or not (TRITON_HEADERS / "crt" / "host_defines.h").is_file():
        return "the headers of CUDA are not among the installed packages"
    return ""


def build(folder: Path) -> Path:
    """The stand-in's library, built in that folder with a driver's library beside it."""
    headers = folder / "include" / "crt"
    headers.mkdir(parents=True, exist_ok=True)
    shutil.copy(TRITON_HEADERS / "crt" / "host_defines.h", headers)
    (folder / "products.c").write_text(_products())
    library, sources = folder / "libfakecuda.so", [path for path in sorted(SOURCE.glob("*.c")) if path.name != "driver.c"]
    includes = (f"-I{folder / 'include'}", f"-I{CUDA_HEADERS}", f"-I{SOURCE}")
    compiled = [*map(str, sources), str(folder / "products.c")]
    _run("gcc", *FLAGS, *includes, *compiled, "-o", str(library), "-lpthread", "-Wl,-Bsymbolic")  # its own calls are not for the real one
    _run("gcc", *FLAGS, str(SOURCE / "driver.c"), "-o", str(folder / "libcuda.so.1"), "-Wl,-soname,libcuda.so.1")
    return library


def missing_symbols(library: Path) -> set[str]:
    """The functions of CUDA's runtime and cuBLAS that torch calls, and neither the stand-in has nor the tests come to."""
    missing = _wanted("cuda[A-Z]|__cuda[A-Z]|cublas") - _names(library, "--defined-only")
    return {name for name in missing if not LEFT_TO_CUDA.match(name)}


def environment(library: Path, **settings: object) -> dict[str, str]:
    """The environment of a process on the stand-in; settings such as `devices=2` become FAKE_CUDA_DEVICES."""
    added = {
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(library.parent),
        "PYTHONPATH": os.pathsep.join([str(SITE), str(HERE.parent.parent)]),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    return os.environ | added | {f"FAKE_CUDA_{name.upper()}": str(value) for name, value in settings.items()}


def _products() -> str:
    """The functions of cuBLAS that blas.c leaves out: those with a product launch one, the others do nothing."""
    own = set(re.findall(r"\bcublas\w+(?=\()", (SOURCE / "blas.c").read_text()))
    lines = ['#include "fake.h"', "int fake_product(void);"]
    for name in sorted(_wanted("cublas") - own):
        lines.append(f"EXPORTED int {name}(void) {{ return {'0' if NO_PRODUCT.search(name) else 'fake_product()'}; }}")
    return "\n".join(lines) + "\n"


def _wanted(pattern: str) -> set[str]:
    """The functions with such names that torch's libraries want from others."""
    libraries = [PACKAGES / "torch" / "lib" / name for name in ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so")]
    names = set().union(*(_names(library, "--undefined-only") for library in libraries))
    return {name for name in names if re.match(pattern, name)}


def _names(library: Path, option: str) -> set[str]:
    lines = _run("nm", "-D", option, str(library)).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines if line.strip()}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
