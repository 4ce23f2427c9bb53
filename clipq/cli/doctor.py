"""`clipq doctor`: is everything there that a gate needs?"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.errors import ClipqError, SettingsError
from clipq.settings import Settings, find_settings, load_settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.cli.onboarding.health import Finding

__all__ = ["SCHEMA", "declare", "run"]

SCHEMA = "clipq-doctor/1"
_DESCRIPTION = """\
Check the installation (versions against what clipq declares, torch and torchvision as a pair),
devices, pytest's plugin, settings, plugins, models, probes, margins, baselines, waivers, cache,
report folder and history store. Nothing is downloaded, measured or written; images are not read
(`clipq probe check` does).
"""
_EPILOG = """\
exit codes: 0 no problem (warnings are none), 1 a problem, each with its fix; 2 wrong usage
"""
_MARKS = {"ok": "OK", "warning": "WARNING", "problem": "PROBLEM", "not checked": "-"}


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq doctor` to the command line."""
    doctor = commands.add_parser(
        "doctor",
        help="check installation, devices, settings, baselines, cache and store",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Make every examination and print what was found; return the exit code.

    Raises:
        SettingsError: ``--config`` names a file that does not exist.
    """
    from clipq.cli.onboarding import installation, project, storage_health
    from clipq.cli.onboarding.health import Context, State, examine

    settings, finding = _settings(options.config)
    today = datetime.datetime.now(datetime.UTC).date()
    context = Context(settings, os.environ, today)
    findings = examine(installation.EXAMINATIONS, context)
    findings.append(finding)
    findings += examine((*project.EXAMINATIONS, *storage_health.EXAMINATIONS), context)
    problems = sum(one.state is State.PROBLEM for one in findings)
    if options.json:
        checks = [asdict(one) | {"state": one.state.value} for one in findings]
        document = {"schema": SCHEMA, "problems": problems, "checks": checks}
        emit(json.dumps(document, indent=1, allow_nan=False))
    else:
        say(_text(findings, problems))
    return 1 if problems else 0


def _settings(given: Path | None) -> tuple[Settings | None, Finding]:
    """Return the settings that apply, or None, and what is to be said of them.

    Raises:
        SettingsError: a file was named that does not exist.
    """
    from clipq.cli.onboarding.health import Finding, State

    if given is not None and not given.is_file():
        raise SettingsError(f"no settings file {given}", hint="check --config")
    try:
        path = given or find_settings(Path.cwd())
        if path is None:
            text = f"no clipq.toml at or above {Path.cwd()}"
            return None, Finding("settings", State.PROBLEM, text, "clipq init")
        settings = load_settings(path)
    except ClipqError as error:
        return None, Finding("settings", State.PROBLEM, error.problem, error.hint)
    except (OSError, UnicodeDecodeError) as error:  # a pyproject.toml above that cannot be read
        text = f"they cannot be read: {type(error).__name__}: {error}"
        return None, Finding("settings", State.PROBLEM, text, "make the file readable")
    return settings, Finding("settings", State.OK, str(settings.path))


def _text(findings: Sequence[Finding], problems: int) -> str:
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{_MARKS[one.state.value]:<8} {one.name:<{width}}  {_one_line(one.text)}")
        if one.fix:
            lines.append(f"{'':<8} {'':<{width}}  fix: {_one_line(one.fix)}")
    warned = sum(one.state.value == "warning" for one in findings)
    return "\n".join([*lines, "", f"{_count(problems, 'problem')}, {_count(warned, 'warning')}"])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
