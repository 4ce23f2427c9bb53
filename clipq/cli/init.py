"""`clipq init`: look at a repository, write a commented clipq.toml."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.errors import SettingsError
from clipq.files import replace_atomically
from clipq.settings import find_settings, load_settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.cli.onboarding.proposal import Proposal

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Look through a repository and write clipq.toml and baselines/margins.toml, with a comment for every
choice. Looked for: folders in open_clip's local-dir layout; models that Python code names
(create_model_and_transforms("ViT-B-32", pretrained="...") and "hf-hub:..."); WebDataset shards as
CLIP_benchmark lays them out; a folder of images per class; lists of images; quantizers that code or
installed packages register. Code is parsed, never imported. Nothing is downloaded.

What was not found stands in the file as a commented placeholder that says what to put there.
An existing file is never overwritten without --force, which keeps it as FILE.bak.
"""
_EPILOG = """\
exit codes: 0 written (what is missing, if anything, is listed), 2 nothing usable was found, a file
            exists, or wrong usage
"""
_MARGINS = Path("baselines/margins.toml")


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq init` to the command line."""
    init = commands.add_parser(
        "init",
        help="look at a repository and write a commented clipq.toml",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    init.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: here"
    )
    init.add_argument("--dry-run", action="store_true", help="print clipq.toml, write nothing")
    init.add_argument(
        "--force", action="store_true", help="replace existing files; each is kept as FILE.bak"
    )
    init.add_argument(
        "--with-test", action="store_true", help="also write a two-line test module for pytest"
    )
    init.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Look, write and say what was found; return the exit code.

    Raises:
        SettingsError: there is no such folder, nothing usable in it, or settings exist already.
    """
    from clipq.cli.onboarding.proposal import look, propose
    from clipq.cli.onboarding.writing import settings_text

    root = options.folder.resolve()
    if not root.is_dir():
        raise SettingsError(f"no folder {options.folder}", hint="name the folder of a repository")
    if not (options.force or options.dry_run):
        _refuse_existing(root)
    proposal = propose(look(root))
    if not proposal.usable:
        listed = "".join(f"\n  - {text}" for text in (*proposal.missing, *proposal.notes))
        raise SettingsError(
            f"nothing usable was found in {root}:{listed}",
            hint="run it where your models or data are; docs/settings.md shows a complete file",
        )
    text = settings_text(proposal)
    if options.dry_run:
        emit(text)
        return 0
    written = _write_all(root, text, proposal, options)
    say(_told(proposal, written, root))
    return 0


def _refuse_existing(root: Path) -> None:
    """Refuse where clipq is set up already.

    Raises:
        SettingsError: it is.
    """
    nearest = find_settings(root)
    if _exists(root / "clipq.toml"):
        raise SettingsError(
            f"{root / 'clipq.toml'} exists",
            hint="--dry-run prints what init would write; --force replaces it and keeps a .bak",
        )
    if nearest is not None and nearest.parent == root:
        raise SettingsError(
            f"{nearest} has [tool.clipq] already, which a clipq.toml would hide",
            hint="--dry-run prints what init would write; --force writes it none the less",
        )


def _write_all(root: Path, text: str, proposal: Proposal, options: argparse.Namespace) -> list[str]:
    from clipq.cli.onboarding.writing import MARGINS, TEST

    check = _load_whole if not proposal.missing else _load_parts
    wanted: list[tuple[Path, str, Callable[[Path], object]]] = [
        (root / "clipq.toml", text, check),
        (root / _MARGINS, MARGINS, _load_margins),
    ]
    if options.with_test:
        folder = root / "tests" if (root / "tests").is_dir() else root
        wanted.append((folder / "test_reliability.py", TEST, lambda path: None))
    written = []
    for path, content, readable in wanted:
        name = path.relative_to(root)
        if _exists(path) and not options.force:
            written.append(f"kept     {name} (it exists)")
            continue
        backup = _backup(path) if _exists(path) else None
        _write(path, content, readable)
        written.append(f"written  {name}" + (f" (the old one is {backup.name})" if backup else ""))
    return written


def _write(path: Path, content: str, readable: Callable[[Path], object]) -> None:
    """Write a file that was read back before it takes its place."""

    def fill(temporary: Path) -> None:
        temporary.write_text(content, encoding="utf-8")
        readable(temporary)

    replace_atomically(path, fill)


def _load_whole(path: Path) -> None:
    load_settings(path)


def _load_parts(path: Path) -> None:
    """Check that an incomplete file is TOML; `load_settings` would name what is missing."""
    import tomllib

    tomllib.loads(path.read_text(encoding="utf-8"))


def _load_margins(path: Path) -> None:
    from clipq.gating.margins import load_margins

    load_margins(path)


def _backup(path: Path) -> Path:
    """Copy a file to FILE.bak, or FILE.bak2 ... where there is one; return where."""
    number = 1
    while True:
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        if not _exists(backup):
            break
        number += 1
    try:
        shutil.copy2(path, backup)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be kept as {backup.name}: {error.strerror or error}",
            hint="nothing was replaced; make the folder writable",
        ) from error
    return backup


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _told(proposal: Proposal, written: Sequence[str], root: Path) -> str:
    from tabulate import tabulate

    rows = [("model", model.name, model.source, "") for model in proposal.models]
    rows += [
        (
            f"{probe.role} probe",
            probe.name,
            f"{probe.source} {probe.split}",
            "" if probe.decided else "commented out: decide",
        )
        for probe in proposal.probes
    ]
    rows += [("quantizer", name, "", "") for name in proposal.quantizers]
    lines = [tabulate(rows, ("found", "name", "where", ""), tablefmt="plain"), "", *written]
    if proposal.notes:
        lines += ["", "seen, but not used:", *(f"  - {note}" for note in proposal.notes)]
    if proposal.missing:
        lines += [
            "",
            "MISSING; clipq.toml says at each place what to write there:",
            *(f"  - {text}" for text in proposal.missing),
        ]
    where = "" if root == Path.cwd() else f"cd {root}\n  "
    lines += ["", "next:", f"  {where}{_next(proposal)}"]
    return "\n".join(lines)


def _next(proposal: Proposal) -> str:
    if proposal.missing:
        return (
            "edit clipq.toml          # fill in what is MISSING\n"
            "  clipq doctor             # is it complete?"
        )
    return (
        "clipq probe check        # are these the images you mean? draws them, too\n"
        "  clipq baseline create    # measure FP32 and store it for review; then: clipq gate"
    )
