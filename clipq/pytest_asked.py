"""What a command line of pytest asks clipq for, and what a process keeps of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clipq.pytest_interrupts import Interrupts
from clipq.settings import PATHS, SELECTORS, Settings, load_settings

if TYPE_CHECKING:
    from clipq.gating.matrix import Matrix

__all__ = ["ASKED", "COLLECTOR", "INTERRUPTS", "SHARED", "Asked", "shared"]

COLLECTOR = "clipq-collector"
"""Name of the plugin that notices what is missing, on the controlling process."""
SHARED = "clipq-shared"
"""Key of a worker's input: the folder that the workers of a run share."""


class Asked:
    """What a command line asks for.

    Settings and users' plugins are read when a test that takes a case or a kernel check is
    collected: a settings file that is not finished stops no other test.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path

    @cached_property
    def settings(self) -> Settings:
        """The settings file with what the command line says instead.

        Raises:
            SettingsError: the file is malformed.
        """
        option, folder = self.config.getoption, self.config.invocation_params.dir
        overrides: dict[str, Any] = {
            name: Path(folder, option(f"--clipq-{name}"))
            for name in PATHS
            if option(f"--clipq-{name}")
        }
        settings = load_settings(self.path)
        if option("--clipq-record"):
            overrides["history"] = replace(settings.history, record=True)
        if option("--clipq-policy"):
            settings = settings.under(option("--clipq-policy"))
        return replace(settings, **overrides)

    @cached_property
    def matrix(self) -> Matrix:
        """The matrix of this run, users' plugins loaded.

        Raises:
            SettingsError: the settings are malformed, or a plugin cannot be imported.
        """
        from clipq.evaluation.plan import Selection, load_plugins
        from clipq.gating.matrix import Matrix

        option, settings = self.config.getoption, self.settings
        load_plugins(settings)
        chosen = {f"{name}s": tuple(option(f"--clipq-{name}")) for name in SELECTORS}
        return Matrix(
            settings,
            Selection(**chosen),
            profile=option("--clipq-profile"),
            kernels=tuple(option("--clipq-kernel")),
        )


ASKED = pytest.StashKey[Asked]()
INTERRUPTS = pytest.StashKey[Interrupts]()


def shared(config: pytest.Config) -> Path | None:
    """Return the folder that the workers of this run share; None for a single process."""
    folder = getattr(config, "workerinput", {}).get(SHARED)
    # A worker on another machine does not see it, and measures by itself.
    return Path(folder) if folder and Path(folder).is_dir() else None
