"""What the names of this process's libraries stand for: functions, classes, hooks, registrations.

A name that is added is nobody's harm, for libraries import late; one that stands for something else
than before is, and so is one that now hides another: `torch.Tensor.round = ...` adds a name to a
class and takes it from the class above.
"""

from __future__ import annotations

import builtins
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter, ne
from types import FunctionType, ModuleType
from typing import Any

from clipq.registry import Registry

__all__ = ["NamesMoment", "ProcessNames"]

_ROOTS = frozenset(
    {
        *("builtins", "math", "random", "functools", "operator", "hashlib", "copy", "json"),
        *("numpy", "PIL", "safetensors", "clipq", "open_clip", "torch", "torchvision", "timm"),
    }
)
"""Packages whose names are watched: what encodes, judges and stores."""
_APART = (
    *("torch._decomp", "torch._dynamo", "torch._export", "torch._functorch", "torch._inductor"),
    *("torch._higher_order_ops", "torch._library", "torch._logging", "torch._meta_registrations"),
    *("torch._native", "torch._numpy", "torch._prims", "torch._refs", "torch._subclasses"),
    *("torch._vendor", "torch.compiler", "torch.cuda", "torch.distributed", "torch.export"),
    *("torch.jit", "torch.nested", "torch.futures", "torch.quantization", "torchvision.ops"),
    *("torch.distributions", "torch.fx", "torch.masked", "torch.mps", "torch.mtia", "torch.onnx"),
    *("torch.multiprocessing", "torch.optim", "torch.package", "torch.profiler", "torch.sparse"),
    *("torch.return_types", "torch.testing", "torch.utils", "torch.xpu", "torchvision.datasets"),
    *("torchvision.models", "timm.data", "timm.models", "numpy._typing", "numpy.f2py"),
    *("numpy._core", "numpy.lib", "numpy.ma", "numpy.polynomial", "numpy.testing"),
    *("PIL.ExifTags",),
)
"""Parts that encode nothing, and of which some rebind their own names as they work."""
_CODE = ("clipq", "open_clip", "torch._tensor", "torch.functional", "torch.nn")
"""Modules whose functions' own code is compared too, beside what their names stand for."""
_STRICT = ("clipq", "open_clip")
"""Packages in which plain values are constants too; elsewhere they may be caches and counters."""
_NOT_NAMES = frozenset(
    {
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__doc__", "__dict__", "__weakref__", "__warningregistry__", "__builtins__"),
        "_",  # of builtins, what an interactive Python showed last
        *("__abstractmethods__", "__static_attributes__", "__firstlineno__", "__spec__"),
    }
)
_GONE = object()


@dataclass(slots=True, eq=False)
class _Space:
    """Names of a module, a class or a mapping, and what they stood for.

    `added` says of a new name and its value whether it changes something.
    """

    label: str
    owner: Any
    live: Mapping[str, Any]
    was: dict[str, Any]
    added: Callable[[str, Any], bool]
    strict: bool

    def changes(self) -> Iterator[tuple[str, Any]]:
        """Yield names that stand for something else, with what they stood for; note the others."""
        for name in self.live.keys() | self.was.keys():
            now, was = self.live.get(name, _GONE), self.was.get(name, _GONE)
            if now is was:
                continue
            if name not in _NOT_NAMES and self._harmed(name, now, was):
                yield name, was
            elif now is _GONE:
                del self.was[name]
            else:
                self.was[name] = now

    def _harmed(self, name: str, now: Any, was: Any) -> bool:
        if was is _GONE:
            return self.added(name, now)
        # torch.compile replaces a few functions of torch by its own, around the very same ones.
        wrapped = getattr(now, "_torchdynamo_orig_callable", None) is was or str(
            getattr(now, "__module__", "")
        ).startswith("torch._dynamo")
        return (self.strict or _computes(was)) and not wrapped and not _plainly_equal(now, was)

    def put_back(self, name: str, was: Any) -> None:
        """Let a name stand for what it did."""
        if isinstance(self.owner, type):
            delattr(self.owner, name) if was is _GONE else setattr(self.owner, name, was)
        elif was is _GONE:
            self.owner.pop(name, None)
        else:
            self.owner[name] = was


@dataclass(frozen=True, slots=True)
class NamesMoment:
    """What differed, at one moment, from what was noted before: nothing unless said."""

    names: Mapping[tuple[int, str], Any] = field(default_factory=dict)
    codes: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    kernels: frozenset[str] = frozenset()


class ProcessNames:
    """What names stood for at one moment.

    >>> import math
    >>> before, square_root = ProcessNames(), math.sqrt
    >>> math.sqrt = abs
    >>> before.restore()
    ['math.sqrt was replaced']
    >>> before.restore(), math.sqrt is square_root
    ([], True)
    """

    def __init__(self) -> None:
        self._spaces: list[_Space] = []
        self._live: list[Mapping[str, Any]] = []  # of each space
        self._was: list[dict[str, Any]] = []
        self._functions: list[FunctionType] = []
        self._insides: list[tuple[Any, ...]] = []
        self._seen: set[int] = set()
        self._modules = 0
        self.note()
        self._kernels = _replaced_kernels()

    def note(self) -> None:
        """Note the names of what has been imported since."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for name, module in list(sys.modules.items()):
            if (
                id(module) not in self._seen
                and isinstance(module, ModuleType)
                and _is_watched(name)
            ):
                self._see(name, module)

    def adopt(self) -> None:
        """Take what everything stands for now as what it should."""
        self.adopt_since(NamesMoment())

    def moment(self) -> NamesMoment:
        """Return what differs now from what was noted."""
        names = {
            (id(space), name): space.live.get(name, _GONE)
            for space in self._different()
            for name, _ in space.changes()
        }
        now = self._insides_now()
        codes = {place: one for place, one in enumerate(now) if one != self._insides[place]}
        return NamesMoment(names, codes, _replaced_kernels() - self._kernels)

    def adopt_since(self, before: NamesMoment) -> None:
        """Take what has changed since a moment as it is now; what differed then still does."""
        self.note()
        for space in self._different():
            for name in space.live.keys() | space.was.keys():
                now = space.live.get(name, _GONE)
                if now is before.names.get((id(space), name), before):
                    continue  # no name stands for a moment
                if now is _GONE:
                    space.was.pop(name, None)
                else:
                    space.was[name] = now
        now = self._insides_now()
        if now != self._insides:
            for place, inside in enumerate(now):
                if inside != before.codes.get(place):
                    self._insides[place] = inside
        self._kernels = _replaced_kernels() - before.kernels

    def restore(self) -> list[str]:
        """Put everything back; return what had changed, in words. What stays is found again."""
        found = []
        for space in self._different():
            for name, before in sorted(space.changes(), key=lambda change: change[0]):
                how = "was removed" if name not in space.live else "was replaced"
                found.append(f"{space.label}.{name} {how}")
                space.put_back(name, before)
        if self._insides_now() != self._insides:
            found += self._code_put_back()
        new = _replaced_kernels() - self._kernels
        if new:
            _drop_kernels(new)
            found += [f"the kernel of {name} was replaced" for name in sorted(new)]
        return found

    def _different(self) -> list[_Space]:
        # Nearly always nothing does, and this is asked often: not in a loop of Python's.
        try:
            differ = [bool(one) for one in map(ne, self._live, self._was)]
        except Exception:  # comparing arrays gives no truth; what is identical is never compared
            differ = list(map(_differ, self._live, self._was))
        return list(compress(self._spaces, differ))

    def _insides_now(self) -> list[tuple[Any, ...]]:
        return list(map(_inside, self._functions))

    def _code_put_back(self) -> Iterator[str]:
        for function, was in zip(self._functions, self._insides, strict=True):
            if _inside(function) != was:
                function.__code__, function.__defaults__, function.__kwdefaults__ = was
                yield f"the code of {function.__module__}.{function.__qualname__} was replaced"

    # -- what is watched ------------------------------------------------------------------------

    def _see(self, name: str, module: ModuleType) -> None:
        self._seen.add(id(module))
        names, strict = vars(module), name.split(".")[0] in _STRICT
        self._watch(name, names, names, added=_hides_a_builtin, strict=strict)
        for value in list(names.values()):
            if issubclass(type(value), type):
                self._see_class(value)
            elif type(value) is FunctionType:
                self._see_function(value)
            elif strict and isinstance(value, Registry):
                self._see_registry(value)
        if name == "torch.nn.modules.module":
            for known, hooks in list(names.items()):
                if known.startswith("_global_") and isinstance(hooks, dict):
                    label = f"torch.nn's {known.removeprefix('_global_')}"
                    self._watch(label, hooks, hooks, added=lambda *_: True, strict=True)
        elif name == "torch":
            operators = vars(module.ops.aten)
            self._watch("torch.ops.aten", operators, operators)

    def _see_class(self, kind: type) -> None:
        module = str(getattr(kind, "__module__", ""))
        legacy = type(kind).__name__ == "tensortype"  # torch.FloatTensor and its like
        if id(kind) in self._seen or legacy or not _is_watched(module):
            return
        self._seen.add(id(kind))
        label = f"{kind.__module__}.{kind.__qualname__}"
        strict = label.split(".")[0] in _STRICT

        def hides(name: str, _: Any) -> bool:
            inherited = any(name in vars(above) for above in kind.__mro__[1:])
            return name in ("__getattr__", "__torch_dispatch__") or inherited

        self._watch(label, kind, vars(kind), added=hides, strict=strict)
        for value in vars(kind).values():
            if type(value) is FunctionType:
                self._see_function(value)

    def _see_registry(self, registry: Registry[Any]) -> None:
        def is_another(name: str, thing: Any) -> bool:
            target = registry._targets.get(name)
            where = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', name)}"
            return target is not None and where != target

        label, known = f"registered {registry.kind}", registry._objects
        self._watch(label, known, known, added=is_another, strict=True)

    def _see_function(self, function: FunctionType) -> None:
        watched = str(function.__module__).startswith(_CODE)
        if watched and id(function) not in self._seen:
            self._seen.add(id(function))
            self._functions.append(function)
            self._insides.append(_inside(function))

    def _watch(
        self,
        label: str,
        owner: type | MutableMapping[str, Any],
        live: Mapping[str, Any],
        *,
        added: Callable[[str, Any], bool] = lambda *_: False,
        strict: bool = False,
    ) -> None:
        space = _Space(label, owner, live, dict(live), added, strict)
        self._spaces.append(space)
        self._live.append(space.live)
        self._was.append(space.was)


def _is_watched(module: str) -> bool:
    """Return whether the names of a module, by its own name, are watched.

    >>> _is_watched("torch.nn.functional"), _is_watched("torch.fx"), _is_watched("my_quantizer")
    (True, False, False)
    """
    root = module.partition(".")[0]
    return root in _ROOTS and not module.startswith(_APART)


def _computes(value: Any) -> bool:
    """Return whether a value is something to compute with, and not a cache or a counter."""
    if issubclass(type(value), type | ModuleType) or callable(value):
        return True
    return type(value).__name__ in ("Tensor", "Parameter", "ndarray", "property", "staticmethod")


def _plainly_equal(one: Any, other: Any) -> bool:
    """Return whether two plain values are the same; anything else is by identity alone."""
    plain = isinstance(one, int | float | str | bytes | tuple | frozenset | type(None))
    try:
        return plain and type(one) is type(other) and bool(one == other)
    except Exception:
        return False


def _hides_a_builtin(name: str, value: Any) -> bool:
    return hasattr(builtins, name) and name not in _NOT_NAMES and not isinstance(value, ModuleType)


def _differ(live: Mapping[str, Any], was: Mapping[str, Any]) -> bool:
    """Return whether names stand for something else; fast where they are what they were."""
    try:
        return bool(live != was)
    except Exception:  # comparing arrays gives no truth; what is identical is never compared
        return True


_inside = attrgetter("__code__", "__defaults__", "__kwdefaults__")
"""What a function computes, by its own parts."""


def _replaced_kernels() -> frozenset[str]:
    """Return torch's own operators for which Python code is registered, by their keys."""
    library = sys.modules.get("torch.library")
    known = getattr(library, "_impls", ())
    return frozenset(name for name in known if name.startswith("aten/"))


def _drop_kernels(names: frozenset[str]) -> None:
    import torch

    for found in gc.get_objects():
        if type(found) is torch.library.Library and names & set(found._op_impls):
            found._destroy()  # type: ignore[no-untyped-call]
