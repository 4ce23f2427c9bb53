"""A package of AOTInductor, read as data: what the source of its library says of its inputs.

The library itself checks nothing: given float64 for float32, or smaller images, it reads beyond
them and returns numbers. What it takes is written in the source that torch packs beside it.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clipq.errors import ArtifactError
from clipq.runtimes.cpu_flags import cpu_flags
from clipq.runtimes.runtime import Port

__all__ = ["AotiPackage"]

_CHECK = re.compile(r"static void check_input_(\d+)\(.*?\n}\n", re.DOTALL)
_TYPE = re.compile(r"expected_dtype = aoti_torch_dtype_(\w+)\(\)")
_SIZE = re.compile(r"if \((\d+) != \w+_size\[(\d+)\]\)")
_STRIDE = re.compile(r"_stride\[(\d+)\]\)")
_AXIS = re.compile(r"_size\[(\d+)\]")
_SPEC = re.compile(r'(in|out)_spec_ = R"\((.*?)\)";')
_USED = re.compile(r"cached_torch_dtype_(\w+)")
_CALL = re.compile(r"\baoti_torch_(?:cpu|cuda|xpu|mps)_(\w+)\(")
_PRODUCTS = re.compile(r"(addmm|baddbmm|bmm|mm|convolution|mkl_linear|_linear_pointwise)")
_NARROW = re.compile(r"(_int_mm|_scaled_mm|_weight_int\dpack_mm|qlinear|qconv)")
_FLAGS = {"AVX512": "avx512f"}
"""Where torch's name of an instruction set is not the system's in small letters."""


class AotiPackage:
    """What a package says of itself.

    Args:
        path: of a .pt2.

    Attributes:
        metadata: on what it was compiled.
        specs: how it is called, the two trees of `CallSpec.parse`; () where no source is packed.

    Raises:
        ArtifactError: it is damaged, or holds no model of that name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(f"{broken} is not what was written")
                names = [name for name in archive.namelist() if "/data/aotinductor/model/" in name]
                source = [name for name in names if name.endswith("wrapper.cpp")]
                said = [name for name in names if name.endswith("wrapper_metadata.json")]
                self._source = archive.read(source[0]).decode() if source else ""
                self.metadata: dict[str, str] = json.loads(archive.read(said[0])) if said else {}
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ArtifactError(
                f"{path} is damaged: {error}", hint="copy it again, or compile the model again"
            ) from error
        if not any(name.endswith((".so", ".pyd", ".dll")) for name in names):
            raise ArtifactError(
                f"{path} holds no compiled model 'model'",
                hint="write it with torch._inductor.aoti_compile_and_package",
            )
        found = dict(_SPEC.findall(self._source))
        self.specs: tuple[str, ...] = tuple(found[key] for key in ("in", "out") if key in found)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What its caller gives, by place; () where no source is packed."""
        checks = sorted(_CHECK.finditer(self._source), key=lambda found: int(found[1]))
        return tuple(_port(found[0], int(found[1])) for found in checks)

    @property
    def floats(self) -> frozenset[str]:
        """Types of the floats that it holds, in numpy's words."""
        return frozenset(name for name in _USED.findall(self._source) if "float" in name)

    def calls(self, *, narrow: bool) -> dict[str, int]:
        """Return how many calls of each product there are: those of integers, or those of floats.

        Products that were compiled into kernels of the package are not among them.
        """
        names = [name.removesuffix("_out") for name in _CALL.findall(self._source)]
        of_integers = Counter(name for name in names if _NARROW.search(name))
        of_floats = Counter(
            name for name in names if name not in of_integers and _PRODUCTS.search(name)
        )
        return dict(sorted((of_integers if narrow else of_floats).items()))

    def check_machine(self) -> None:
        """Refuse a package that would end this process by an instruction that is not there.

        Raises:
            ArtifactError: it was compiled for another system or processor.
        """
        compiled, here = self.metadata.get("AOTI_PLATFORM", ""), sys.platform
        machine = self.metadata.get("AOTI_MACHINE", "")
        missing = [name for name in self._instructions() if name not in cpu_flags()]
        if compiled not in ("", here) or machine not in ("", platform.machine()):
            problem = f"for {compiled} {machine}, and this is {here} {platform.machine()}"
        elif missing and cpu_flags():
            problem = f"for processors with {', '.join(missing)}, which this one lacks"
        else:
            return
        raise ArtifactError(
            f"{self.path} was compiled {problem}",
            hint="compile it on the oldest processor that is to run it",
        )

    def _instructions(self) -> Iterator[str]:
        for name in self.metadata.get("AOTI_CPU_ISA", "").split():
            if name.startswith(("AVX", "AMX", "avx", "amx")):
                yield _FLAGS.get(name, name.lower())


def _port(check: str, place: int) -> Port:
    kind = _TYPE.search(check)
    axes = [int(axis) for axis in (*_AXIS.findall(check), *_STRIDE.findall(check))]
    sizes = dict.fromkeys(range(max(axes, default=-1) + 1), -1)
    sizes.update({int(axis): int(size) for size, axis in _SIZE.findall(check)})
    return Port(f"input {place}", kind[1] if kind else "", tuple(sizes.values()))
