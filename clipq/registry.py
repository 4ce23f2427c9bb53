"""One registry for every kind of extension: same door for clipq's parts and for a user's.

A name reaches a registry in one of three ways: a decorator (`@registry.register("name")`), a lazy
target (`registry.register_lazy("name", "package.module:attribute")`) or an installed entry point of
the registry's group. Nothing is imported before `get` asks for it; names are known without
importing, so that planning stays light.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from clipq.errors import ClipqError, UnknownNameError, did_you_mean

__all__ = ["Registry"]

T = TypeVar("T")
F = TypeVar("F")


class Registry(Generic[T]):
    """Names to lazily loaded objects.

    Args:
        kind: what is registered, for messages (for example ``"quantizer"``).
        group: entry-point group that third-party packages may use.

    >>> greetings: Registry[str] = Registry("greeting", group="example.greetings")
    >>> greetings.add("hello", "Hello, {}!")
    >>> greetings.get("helo")
    Traceback (most recent call last):
    clipq.errors.UnknownNameError: unknown greeting 'helo'
      fix: did you mean 'hello'? known: hello
    """

    def __init__(self, kind: str, *, group: str) -> None:
        self.kind = kind
        self.group = group
        self._objects: dict[str, T] = {}
        self._targets: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self._said: dict[str, dict[str, Any]] = {}
        self._entry_points: dict[str, EntryPoint] | None = None

    def register(self, name: str, **attributes: Any) -> Callable[[F], F]:
        """Decorate an object to register it under `name`; `attributes` are set on the object.

        Raises:
            ClipqError: the name is already taken by another object.
        """

        def decorate(thing: F) -> F:
            self._put(name, cast(T, thing), _calling_module())
            for key, value in attributes.items():
                setattr(thing, key, value)
            return thing

        return decorate

    def add(self, name: str, thing: T) -> None:
        """Register `thing` under `name`; a name is given once."""
        self._put(name, thing, _calling_module())

    def _put(self, name: str, thing: T, origin: str) -> None:
        target = f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', name)}"
        if self._targets.get(name) == target:
            self._objects[name] = thing  # the module behind a lazy target registers itself
            return
        if name in self._objects and _same(self._objects[name], thing):
            self._objects[name] = thing  # a conftest imported twice under one name
            return
        self._refuse_duplicate(name)
        self._origins[name] = origin
        self._objects[name] = thing

    def register_lazy(self, name: str, target: str, **attributes: Any) -> None:
        """Register ``package.module:attribute``, imported at the first `get`.

        `attributes` are what the object will say of itself, for `said`.
        """
        self._refuse_duplicate(name)
        self._targets[name] = target
        self._said[name] = attributes

    def names(self) -> list[str]:
        """Every known name, sorted, without importing anything."""
        return sorted({*self._objects, *self._targets, *self._scan()})

    def __contains__(self, name: str) -> bool:
        return name in self._objects or name in self._targets or name in self._scan()

    def get(self, name: str) -> T:
        """Return the object called `name`, importing it if need be.

        Raises:
            UnknownNameError: no such name; the message lists the known ones.
            ClipqError: the entry point or lazy target cannot be imported.
        """
        if name not in self._objects:
            if name in self._targets:
                self._objects[name] = self._import(name, self._targets[name])
            elif name in self._scan():
                self._objects[name] = self._load(self._scan()[name])
            else:
                raise UnknownNameError(
                    f"unknown {self.kind} {name!r}", hint=did_you_mean(name, self.names())
                )
        return self._objects[name]

    def said(self, name: str, attribute: str, default: Any = None) -> Any:
        """Return an attribute of an object without importing it, as far as it is known then.

        >>> numbers: Registry[int] = Registry("number", group="example.numbers")
        >>> numbers.register_lazy("pi", "math:pi", transcendental=True)
        >>> numbers.said("pi", "transcendental"), numbers.said("e", "transcendental", False)
        (True, False)
        """
        if name in self._objects:
            return getattr(self._objects[name], attribute, default)
        return self._said.get(name, {}).get(attribute, default)

    def origin(self, name: str) -> str:
        """Return the name of the module that registered an object; "" of one that nobody did.

        >>> numbers: Registry[int] = Registry("number", group="example.numbers")
        >>> numbers.register_lazy("pi", "math:pi")
        >>> numbers.get("pi"), numbers.origin("pi")
        (3.141592653589793, 'math')
        """
        if name in self._origins:
            return self._origins[name]
        point = self._scan().get(name)
        target = self._targets.get(name, point.value if point else "")
        return target.partition(":")[0].strip()

    def remove(self, name: str) -> None:
        """Forget a registered object (for tests and interactive use)."""
        self._origins.pop(name, None)
        self._objects.pop(name, None)
        self._targets.pop(name, None)

    def _scan(self) -> dict[str, EntryPoint]:
        if self._entry_points is None:
            found: dict[str, EntryPoint] = {}
            for point in entry_points(group=self.group):
                if point.name in found and point.value != found[point.name].value:
                    raise ClipqError(
                        f"two installed packages provide the {self.kind} {point.name!r}: "
                        f"{found[point.name].value} and {point.value}",
                        hint="uninstall one of them, or rename one entry point",
                    )
                found[point.name] = point
            self._entry_points = found
        return self._entry_points

    def _refuse_duplicate(self, name: str) -> None:
        if name in self:
            raise ClipqError(
                f"{self.kind} {name!r} is already registered",
                hint="choose another name; clipq never overwrites silently",
            )

    def _import(self, name: str, target: str) -> T:
        module_name, _, attribute = target.partition(":")
        found = getattr(import_module(module_name), attribute)
        return cast(T, self._objects.get(name, found))

    def _load(self, point: EntryPoint) -> T:
        try:
            return cast(T, point.load())
        except Exception as error:
            raise ClipqError(
                f"{self.kind} {point.name!r} ({point.value}) cannot be imported: {error!r}",
                hint="fix or uninstall the package that provides it",
            ) from error


def _calling_module() -> str:
    """Return the name of the module whose code called the function that calls this one."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))


def _same(old: object, new: object) -> bool:
    """Whether two objects are the same definition (one source file loaded twice)."""
    code_old, code_new = getattr(old, "__code__", None), getattr(new, "__code__", None)
    if code_old is None or code_new is None:
        return old is new
    return (code_old.co_filename, code_old.co_firstlineno) == (
        code_new.co_filename,
        code_new.co_firstlineno,
    )
