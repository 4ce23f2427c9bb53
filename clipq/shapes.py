"""What clipq reads, held against declared types: TOML, JSON and CSV, of which nothing is trusted.

A shape is a frozen dataclass or a `table`; its annotations say what each key may hold, and msgspec
checks and converts. msgspec's messages name neither the value nor a mapping's key, so where it
refuses, the innermost place that does not fit is looked for. Whatever is wrong is one error that
says which file, where in it, the value, what is allowed and how to mend it.
"""

from __future__ import annotations

import codecs
import datetime
import json
import math
import re
import reprlib
import sys
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from clipq.errors import ClipqError, did_you_mean
from clipq.files import read_file

__all__ = [
    "Document",
    "Finite",
    "Meta",
    "Name",
    "Number",
    "PathText",
    "Text",
    "Texts",
    "between",
    "keys",
    "one_of",
    "shown",
    "table",
    "whole",
]

T = TypeVar("T")

_LARGEST = sys.float_info.max
_NAME = "letters, digits, '.', '_' and '-'"
Text = Annotated[str, Meta(pattern=r"\A[^\0]+\Z", description="a non-empty text")]
Texts = Annotated[tuple[Text, ...], Meta(description="a list of texts")]
PathText = Annotated[Path, Meta(description="a path: a non-empty text")]
Finite = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST, description="a finite number")]
_WHOLE = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Number = Annotated[Finite | _WHOLE, Meta(description="a finite number")]
"""Kept as it was written, so that it hashes as it did."""
Name = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9._-]+\Z", description=f"a text; a name holds {_NAME}")
]


def whole(least: int, most: int = 2**31 - 1) -> Meta:
    """Return the constraint of a whole number; `most` is a C int's, as torch takes it."""
    return Meta(ge=least, le=most, description=f"a whole number >= {least} and <= {most}")


def between(low: float, high: float, what: str = "a number") -> Meta:
    """Return the constraint of a number inside of an open interval; `what` says of what."""
    said = f"{what} above {low} and below {high}"
    if math.isinf(high):
        return Meta(gt=low, le=_LARGEST, description=said)
    return Meta(gt=low, lt=high, description=said)


def one_of(*allowed: str) -> Meta:
    """Return the constraint of a text that is one of some."""
    pattern = rf"\A(?:{'|'.join(map(re.escape, allowed))})\Z"
    return Meta(pattern=pattern, description=f"one of {', '.join(allowed)}", extra={"of": allowed})


def table(name: str, held: Mapping[str, Any]) -> Any:
    """Return a shape that becomes a dict of what is given, by its Required or NotRequired keys."""
    return typing.TypedDict(name, dict(held))  # type: ignore[operator]  # not one that mypy reads


def keys(shape: type, *names: str) -> dict[str, Any]:
    """Return some fields of a shape, or all of them, as keys for a `table`."""
    either, held = (typing.NotRequired, typing.Required), _keys(shape) or {}
    return {name: either[held[name][1]][held[name][0]] for name in names or held}


@dataclass(frozen=True, slots=True)
class Document:
    """One file, or one line of it, as it is read. A place in it is written ``probes[3]``.

    Args:
        source: its path, or whatever names it in messages.
        form: ``TOML``, ``JSON`` or ``CSV``.
        error: what is raised, whatever is wrong.
        fix: how to get a good one; ends every hint.
    """

    source: Path | str
    form: str
    error: type[ClipqError]
    fix: str = ""

    def read(self, shape: type[T], content: bytes | None = None) -> T:
        """Return the document as `shape`; it is read from its path where `content` is None."""
        return self.shaped(self.parse(content), shape)

    def parse(self, content: bytes | None = None) -> Any:
        """Return TOML or JSON as built-in types: finite numbers, each key once, only characters."""
        text = self.text(content)
        try:
            return _json(text) if self.form == "JSON" else _toml(text)
        except RecursionError:
            raise self._unreadable("it is nested too deeply") from None
        except ValueError as error:
            # Python's limit on digits comes with advice to lift it.
            raise self._unreadable(str(error).partition("; use sys.")[0]) from error

    def rows(self, lines: Sequence[str], *columns: str) -> list[dict[str, str]]:
        """Return lines of CSV, of which the first names `columns` and, perhaps, others."""
        import csv

        # With its end, for else a quoted value that goes on in the next line would be joined to it.
        reader = csv.reader((f"{line}\n" for line in lines), strict=True)
        try:
            head, *rows = [line for line in reader if line] or [[]]
        except csv.Error as error:
            raise self._unreadable(f"line {reader.line_num}: {error}") from error
        for line in (head, *rows):
            for value in line:
                if "\n" in value:
                    raise self.fail(
                        "",
                        f"the value {shown(value)} goes on in the next line",
                        "write every row as one line",
                    )
        for column in columns:
            if (count := head.count(column)) != 1:
                hint = "name each column once" if count else did_you_mean(column, head)
                if len(head) == 1 and (other := re.search(r"[;\t]", head[0])):
                    hint = f"separate columns by commas, not by {shown(other[0])}"
                raise self.fail("", f"{count or 'no'} column {shown(column)}", hint)
        for row in rows:
            if len(row) != len(head):
                raise self.fail("", f"line {shown(row)}", f"each has {len(head)} values")
        return [dict(zip(head, row, strict=True)) for row in rows]

    def text(self, content: bytes | None = None) -> str:
        """Return the text, which is UTF-8, with or without a byte order mark.

        Every text that a user wrote is read here.
        """
        found = b""
        try:
            found = read_file(Path(self.source)) if content is None else content
            text = found.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._unreadable(_undecodable(found, error)) from error
        except FileNotFoundError as error:
            fix = "give the path of a file that is there"
            raise self._unreadable(error.strerror or str(error), fix) from error
        except (OSError, ValueError) as error:  # a path that holds a NUL is no value for Python
            raise self._unreadable(str(error)) from error
        if "\0" in text:
            raise self._unreadable("it holds a NUL")
        return text

    def shaped(self, value: Any, shape: type[T], place: str = "") -> T:
        """Return what was parsed, or what lies at a place of it, as `shape`."""
        try:
            found = _converted(value, shape)
        except msgspec.ValidationError as error:
            self._refuse(value, shape, place, "", fits=False)
            raise self.fail(place, str(error), "") from error
        self._refuse(value, shape, place, "", fits=True)
        return found

    def fail(self, place: str, problem: str, hint: str) -> ClipqError:
        """Return the error of a problem in the table at `place`, "" for the top."""
        where = place or "top level"
        if place and self.form == "TOML":
            many = re.fullmatch(r"(.+)\[(\d+)\]", place)
            where = f"[[{many[1]}]] number {int(many[2]) + 1}" if many else f"[{place}]"
        hint = "; ".join(filter(None, (hint, self.fix)))
        return self.error(f"{self.source}, {where}: {problem}", hint=hint)

    def _unreadable(self, cause: str, fix: str = "correct the file at that place") -> ClipqError:
        message = f"{self.source} cannot be read as {self.form}: {cause}"
        return self.error(message, hint=self.fix or fix)

    def _refuse(self, value: Any, kind: Any, place: str, key: str, *, fits: bool) -> None:
        """Raise the error of the first innermost part that is wrong, if there is one.

        Args:
            value: of built-in types.
            kind: its declared type.
            place: of the table that holds it.
            key: under which the table holds it; "" for the table at `place` itself.
            fits: whether it is known to convert, so that keys alone can be wrong: undeclared ones.
        """
        bare, held = _bare(kind), _keys(_bare(kind))
        if held is not None and isinstance(value, dict):
            inside = _joined(place, key)
            for name in value:
                if name not in held:
                    hint = did_you_mean(name[:99], held)
                    raise self.fail(inside, f"unknown key {shown(name)}", hint)
            for name, (inner, needed, has_keys) in held.items():
                if needed and name not in value:
                    raise self.fail(inside, f"no {name}", f"{name} must be {self._allowed(inner)}")
                if name in value and (has_keys or not fits):
                    self._refuse(value[name], inner, inside, _quoted(name), fits=fits)
        elif fits and not _has_keys(bare):
            return
        elif get_origin(bare) in (Mapping, dict) and isinstance(value, dict):
            for name, part in value.items():
                inner = _joined(key, _quoted(name))
                self._refuse(part, get_args(bare)[1], place, inner, fits=fits)
        elif get_origin(bare) in (tuple, list) and isinstance(value, list):
            for at, part in enumerate(value):
                self._refuse(part, get_args(bare)[0], place, f"{key}[{at}]", fits=fits)
        try:
            fits or _converted(value, kind)
        except msgspec.ValidationError as error:
            found = f"{key} = {shown(value)}" if key else f"it is {shown(value)}"
            hint = f"{key or 'it'} must be {self._allowed(kind)}"
            if (known := _said(kind, "extra")) and isinstance(value, str):
                hint = did_you_mean(value[:99], known["of"])
            raise self.fail(place, found, hint) from error

    def _allowed(self, kind: Any) -> str:
        """Return what a type allows, in words."""
        if said := _said(kind, "description"):
            return str(said)
        held = "a table" if self.form == "TOML" else "an object"
        if get_origin(kind) in (typing.Union, UnionType):
            kinds = [one for one in get_args(kind) if self.form != "TOML" or one is not NoneType]
            return " or ".join(dict.fromkeys(map(self._allowed, kinds)))
        if get_origin(kind) in (tuple, list):
            return f"a list, each {held}" if _keys(get_args(kind)[0]) else "a list"
        words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        return (words | {NoneType: "null"}).get(kind, held)


def _undecodable(content: bytes, error: UnicodeDecodeError) -> str:
    """Return what is wrong with bytes that are not UTF-8, and where."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it is UTF-16, as 'Unicode Text' of Excel is: save it as 'CSV UTF-8', or as UTF-8"
    before = content[: error.start].split(b"\n")
    near = shown(before[-1][-20:] + content[error.start : error.start + 1])
    return f"line {len(before)} is not UTF-8: {near}"


def _converted(value: Any, shape: type[T]) -> T:
    return msgspec.convert(value, shape, builtin_types=(datetime.date,), dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("it is no path")


@cache
def _keys(shape: Any) -> dict[str, tuple[Any, bool, bool]] | None:
    """Return each key's declared type, whether it is needed, and whether keys can be in it."""
    if typing.is_typeddict(shape):
        hints, needed = typing.get_type_hints(shape, include_extras=True), shape.__required_keys__
        kinds = {key: get_args(hint)[0] for key, hint in hints.items()}
    elif is_dataclass(shape):
        hints, unset = typing.get_type_hints(shape, include_extras=True), (MISSING, MISSING)
        kinds = {f.name: hints[f.name] for f in fields(shape) if f.init}
        needed = [f.name for f in fields(shape) if (f.default, f.default_factory) == unset]
    else:
        return None
    return {key: (kind, key in needed, _has_keys(kind)) for key, kind in kinds.items()}


@cache
def _has_keys(kind: Any) -> bool:
    return bool(_keys(_bare(kind))) or any(map(_has_keys, get_args(kind)))


@cache
def _bare(kind: Any) -> Any:
    """Return a type without its constraints and without None."""
    if get_origin(kind) in (typing.Union, UnionType):
        rest = [part for part in get_args(kind) if part is not NoneType]
        return _bare(rest[0]) if len(rest) == 1 else kind
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _said(kind: Any, name: str) -> Any:
    """Return what the outermost constraint that says something says; None where none does."""
    said = (getattr(meta, name) for meta in reversed(getattr(kind, "__metadata__", ())))
    return next(filter(None, said), None)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: object) -> str:
    """Return a value as messages show it: in ASCII, cut short where it is long."""
    try:
        return _SHORT.repr(value).encode("ascii", "backslashreplace").decode()
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def _joined(*names: str) -> str:
    return ".".join(filter(None, names))


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{shown(key)[1:-1]}"'


def _toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _json(text: str, spare: int = 50) -> Any:
    deep = text.count("[") + text.count("{") > spare
    if deep and spare:  # calls that are left for whoever writes it again, as deeply nested as it is
        return _json(text, spare - 1)
    found = json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            near = error.object[max(0, error.start - 20) : error.end]
            raise ValueError(f"{shown(near)} ends in half of a character") from None
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{shown(name)} is given twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{shown(text)} is no finite number")
    return number
