"""What every command starts from: the settings that apply where it was called."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipq.errors import SettingsError
from clipq.settings import Settings, find_settings, load_settings

__all__ = ["settings_of"]


def settings_of(options: argparse.Namespace, *, data_alone: bool = False) -> Settings:
    """Return the settings of ``--config``, or of the nearest clipq.toml.

    Args:
        options: of the command line.
        data_alone: whether settings without models and without a matrix will do.

    Raises:
        SettingsError: there is none, or it is malformed.
    """
    path = options.config or find_settings(Path.cwd())
    if path is None:
        raise SettingsError(
            f"no clipq.toml at or above {Path.cwd()}",
            hint="run `clipq init` to write one, or pass --config FILE",
        )
    return load_settings(path, data_alone=data_alone)
