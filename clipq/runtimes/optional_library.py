"""Libraries that run artifacts are optional: imported when asked for, missed in one sentence."""

from __future__ import annotations

import importlib
from typing import Any

from clipq.errors import ArtifactError

__all__ = ["library"]


def library(module: str, extra: str) -> Any:
    """Return a library, imported.

    Args:
        module: as it is imported.
        extra: clipq's optional extra that installs it.

    Raises:
        ArtifactError: it is not installed, or cannot be imported.

    >>> library("no_such_library", "openvino")
    Traceback (most recent call last):
    clipq.errors.ArtifactError: the library 'no_such_library' is not installed
      fix: pip install 'pytest-clipq[openvino]'
    """
    fix = f"pip install 'pytest-clipq[{extra}]'"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        of = "" if missing == module.partition(".")[0] else f", which {module!r} needs,"
        raise ArtifactError(f"the library {missing!r}{of} is not installed", hint=fix) from error
    except Exception as error:  # a shared library that is missing, a version that does not fit
        raise ArtifactError(
            f"the library {module!r} cannot be imported: {error!r}",
            hint=f"pip install --force-reinstall 'pytest-clipq[{extra}]'",
        ) from error
