"""Keeps what a quantizer does to this process from everybody else.

Quantizers, FP32 and clipq itself share a process, for importing torch anew for each would take
longer than measuring. Whatever a quantizer runs is therefore contained: before, the process's
settings and the names of its libraries are noted; after, they are compared, put back, and FP32 and
clipq's rounding are asked again for what they said when the model was loaded. A quantizer that
changed anything is named, and nothing that it computed is kept. Where something cannot be put back,
nothing is measured in the process any more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module

from clipq.errors import QuantizerError, SettingsError, listed
from clipq.evaluation.noted_imports import noted_imports
from clipq.evaluation.process_names import NamesMoment, ProcessNames
from clipq.evaluation.process_settings import ProcessSettings

__all__ = ["PROCESS", "Process", "ProcessChangedError", "import_contained"]

_SHOWN = 5


class ProcessChangedError(QuantizerError):
    """A quantizer changed the process that it shares with others."""


class _Watched:
    """The names and the settings of the process, looked at together."""

    def __init__(self) -> None:
        self._names, self._settings = ProcessNames(), ProcessSettings()

    def adopt(self) -> None:
        """Take everything as it is now for what it should be."""
        self._names.adopt()
        self._settings = ProcessSettings()

    def restore(self) -> list[str]:
        """Put everything back; return what had changed, in words. What stays is found again."""
        return [*self._names.restore(), *self._settings.restore()]

    def noted_imports(self, *, but: str = "") -> AbstractContextManager[None]:
        """Take what a library changes as it is imported for what it should be."""
        return noted_imports(self._moment, self._adopt_since, but=but)

    def _moment(self) -> tuple[NamesMoment, ProcessSettings]:
        return self._names.moment(), ProcessSettings()

    def _adopt_since(self, before: tuple[NamesMoment, ProcessSettings]) -> None:
        self._names.adopt_since(before[0])
        self._settings.adopt_since(before[1])


class Process:
    """The process that quantizers share.

    >>> import math
    >>> process, square_root = Process(), math.sqrt
    >>> with process.contained("mine:w8", "being made", lambda: ""):
    ...     math.sqrt = abs
    Traceback (most recent call last):
    clipq.evaluation.isolation.ProcessChangedError: quantizer 'mine:w8' changed the process ...
    ...
    >>> math.sqrt is square_root
    True
    """

    def __init__(self) -> None:
        self._watched: _Watched | None = None
        self._depth = 0
        self._whole = False
        self._spoilt = ""

    def check(self) -> None:
        """Refuse to measure in a process that is not what it was.

        Raises:
            ProcessChangedError: a quantizer left what could not be put back.
        """
        if self._spoilt:
            raise ProcessChangedError(
                f"nothing is measured in this process any more: {self._spoilt}",
                hint="mend that quantizer, or leave it out",
            )

    @contextmanager
    def contained(
        self, quantizer: str, doing: str, differs: Callable[[], str], *, whole: bool = False
    ) -> Iterator[None]:
        """Contain what a quantizer does.

        Its global random numbers follow from its text and `doing`, whatever ran before.

        Args:
            quantizer: its text.
            doing: what it does, for messages.
            differs: says what FP32 no longer answers as it did, "" where it does.
            whole: whether the process is looked at once, at the end, and not after each thing that
                is contained within. Nothing that is made within may be kept before that.

        Raises:
            ProcessChangedError: the process is no longer what it was.
        """
        from clipq.evaluation.seeding import seeded

        self.check()
        if self._whole:
            with seeded(f"{quantizer} {doing}"), warnings.catch_warnings():
                yield
            return
        watched = self._noted()
        self._depth += 1
        self._whole = whole
        try:
            with (
                seeded(f"{quantizer} {doing}"),
                warnings.catch_warnings(),
                watched.noted_imports(),
            ):
                yield
        except Exception:
            self._settle(watched, quantizer, doing, differs)
            raise
        except BaseException:  # an interrupt stays one
            watched.restore()
            raise
        else:
            self._settle(watched, quantizer, doing, differs)
        finally:
            self._depth -= 1
            self._whole = False

    def _noted(self) -> _Watched:
        if self._watched is None:
            self._watched = _Watched()
        elif not self._depth:  # within, only the first look counts
            self._watched.adopt()  # what others did since is theirs: libraries import one another
        return self._watched

    def _settle(
        self, watched: _Watched, quantizer: str, doing: str, differs: Callable[[], str]
    ) -> None:
        changed = watched.restore()
        stays = watched.restore() if changed else []
        moved = "" if stays else differs()
        if stays or moved:
            left = _listed(stays) if stays else f"{moved} changed"
            before = f" ({_listed(changed)})" if changed and not stays else ""
            self._spoilt = f"after quantizer {quantizer!r} was {doing}, {left}{before}"
            self.check()
        if changed:
            raise ProcessChangedError(
                f"quantizer {quantizer!r} changed the process that it shares with other "
                f"quantizers and FP32 while {doing}: {_listed(changed)}",
                hint="it was put back, and nothing of this quantizer is kept; change the copy of "
                "the model that the method is given, not libraries and settings",
            )


PROCESS = Process()
"""This process."""


def import_contained(name: str) -> None:
    """Import a plug-in module, which may add to the process but change nothing in it.

    Raises:
        SettingsError: it changed a library or a setting, which was put back.
        Exception: whatever the module itself raises.

    >>> import_contained("clipq.quant.rtn")
    """
    watched = _Watched()
    with watched.noted_imports(but=name.partition(".")[0]):
        import_module(name)
    changed = watched.restore()
    if changed:
        raise SettingsError(
            f"plugin {name!r} changes the process as it is imported: {_listed(changed)}",
            hint="FP32 and every other quantizer run in this process too; change the copy of the "
            "model that a method is given, not libraries and settings",
        )


def _listed(changes: list[str]) -> str:
    return listed(changes, most=_SHOWN, between="; ")
