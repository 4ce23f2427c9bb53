"""Run a documentation page from top to bottom, as its reader would, in a small project.

python      with a title: becomes that file; with tests in it: run by pytest; else executed, the
            blocks of a page sharing their names
bash        run in the project; clipq, pytest and python are this environment's
toml        read by the loader of what it is: settings (fragments are completed), margins,
            waivers, a project's metadata
yaml        parsed; commands in it are ones that clipq knows
json        parsed; a run record is read as one
text        as it is; marked `output`: its lines are among those that the block above printed
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from command_lines import check_commands
from merged_settings import merged, toml
from page_blocks import Block
from warm_process import outside_of_tests

from clipq.exports import recipes
from clipq.metrics import metrics
from clipq.quant import quantizers
from clipq.runtimes import runtimes
from clipq.settings import load_settings

LANGUAGES = ("bash", "json", "python", "text", "toml", "yaml")
_SETTINGS = {
    "artifacts", "clipq", "history", "limits", "matrix", "models", "policies", "probes", "profiles",
    "statistics",
}  # fmt: skip
_LIMIT_S = 300


class PageSession:
    """What a reader has after the blocks so far: files, names, what the last of them printed.

    Args:
        root: the reader's project.
        programs: a folder whose programs commands find first.
    """

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self.programs = programs
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""
        self._unused: set[str] = set()

    def run(self, block: Block) -> None:
        """Run or check one block.

        Raises:
            AssertionError, ValueError or whatever the block raises; with its place.
        """
        rule = getattr(self, f"_{block.language}", None)
        if block.language not in LANGUAGES or rule is None:
            raise ValueError(f"{block.where}: no rule for blocks of {block.language!r}")
        self._unused = {name for name in self._unused if Path(name).stem not in block.text}
        try:
            rule(block)
        except BaseException as error:
            error.add_note(f"in the block at {block.where}")
            raise

    def finish(self) -> None:
        """Run the Python files of the page that none of its later blocks spoke of."""
        for name in sorted(self._unused):
            self._command(f"python {name}", 0)

    def _python(self, block: Block) -> None:
        code = compile(block.text, f"{block.where}", "exec")
        if block.mark == "needs-cuda":
            import torch

            if not torch.cuda.is_available():
                return
        if block.title:
            (self.root / block.title).write_text(block.text, encoding="utf-8")
        if re.search(r"^def test_", block.text, re.MULTILINE):
            name = block.title or f"test_block_{block.line}.py"
            (self.root / name).write_text(block.text, encoding="utf-8")
            self._command(f"pytest -q -n0 -p no:cacheprovider {name}", 0)
        elif block.title:
            self._unused.add(block.title)
        else:
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(code, self.names)
            self.printed = printed.getvalue() or self.printed

    def _bash(self, block: Block) -> None:
        if block.mark.startswith("parsed"):
            check_commands(block.text)
            return
        if block.mark == "bare":
            (self.root / "clipq.toml").unlink()
            for folder in ("baselines", "data/shapes", "data/scans"):
                shutil.rmtree(self.root / folder)
        exits = block.mark.startswith("exits")
        status = int(block.mark.removeprefix("exits ")) if exits else 0
        self._command(block.text, status)

    def _command(self, script: str, status: int) -> None:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=self.root,
            env=_environment(self.root, self.programs),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
        self.printed = done.stdout + done.stderr
        assert done.returncode == status, f"{script}\nexits {done.returncode}\n{self.printed}"

    def _toml(self, block: Block) -> None:
        document = tomllib.loads(block.text)
        target = self.root / (block.title or "block.toml")
        if "margin" in document or "expected-failure" in document:
            from clipq.gating.margins import load_margins

            target.write_text(block.text, encoding="utf-8")
            assert load_margins(target).rules or "expected-failure" in document
        elif "waiver" in document:
            from clipq.gating.waivers import load_waivers

            target.write_text(block.text, encoding="utf-8")
            assert load_waivers(target)
        elif set(document) <= _SETTINGS:
            whole = tomllib.loads((self.root / "clipq.toml").read_text(encoding="utf-8"))
            target.write_text(toml(merged(whole, document)), encoding="utf-8")
            load_settings(target)
        elif "sweep" in document:
            from clipq.sweep.sweep_plan import read_plan

            target.write_text(block.text, encoding="utf-8")
            assert read_plan(target).survey(load_settings(self.root / "clipq.toml")).units
        elif block.title == "pyproject.toml":
            _check_entry_points(document)
        else:
            raise ValueError(f"{block.where}: TOML of no known kind: {sorted(document)}")

    def _yaml(self, block: Block) -> None:
        for command in shell_lines(yaml.safe_load(block.text)):
            check_commands(command)

    def _json(self, block: Block) -> None:
        plain = json.loads(block.text)
        if isinstance(plain, dict) and "cases" in plain:
            from clipq.records import RunRecord

            RunRecord.from_plain(plain)

    def _text(self, block: Block) -> None:
        if block.mark != "output":
            return
        printed = {_stable(line) for line in self.printed.splitlines()}
        for line in block.text.splitlines():
            shown = _stable(line.removesuffix("..."))
            cut = line.endswith("...")  # the rest differs, or is too long to show
            found = any(p.startswith(shown) for p in printed) if cut else shown in printed
            assert found or not shown, f"{line!r} is not printed:\n{self.printed}"


def _check_entry_points(document: Mapping[str, Any]) -> None:
    """Look whether a project offers what it offers under groups that clipq has."""
    groups = document["project"]["entry-points"]
    known = {registry.group for registry in (metrics, quantizers, recipes, runtimes)}
    if not set(groups) <= known:
        raise ValueError(f"entry points {sorted(groups)}; clipq looks at {sorted(known)}")


def shell_lines(document: Any) -> Iterator[str]:
    """Yield what the steps of a workflow, an action or a pipeline run in a shell.

    An action's inputs have their defaults, and a step's variables their values.
    """
    inputs = document.get("inputs", {}) if isinstance(document, dict) else {}
    for script in _scripts(document):
        for name, declared in inputs.items():
            script = script.replace(f"${{{{ inputs.{name} }}}}", str(declared["default"]))
        yield script


def _scripts(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "run" and isinstance(value, str):
                for name, given in document.get("env", {}).items():
                    value = value.replace(f"${name}", str(given))
                yield value
            elif key in ("script", "before_script", "after_script") and isinstance(value, list):
                yield from value
            else:
                yield from _scripts(value)
    elif isinstance(document, list):
        for entry in document:
            yield from _scripts(entry)


def _environment(root: Path, programs: Path) -> dict[str, str]:
    """Return a reader's environment: these programs first, nothing of pytest's."""
    kept = outside_of_tests(os.environ)
    folders = (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
    return kept | {
        "PATH": os.pathsep.join(folders),
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTEST_XDIST_AUTO_NUM_WORKERS": "0",  # one process imports torch in half the time of two
        "GIT_AUTHOR_NAME": "reader",
        "GIT_AUTHOR_EMAIL": "reader@example.org",
        "GIT_COMMITTER_NAME": "reader",
        "GIT_COMMITTER_EMAIL": "reader@example.org",
    }


def _stable(line: str) -> str:
    """Return a line without what differs between machines and runs: numbers, widths, hashes."""
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "#", line)
    text = re.sub(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", "#", text)
    text = re.sub(r"-{2,}", "--", text)
    return re.sub(r"\s+", " ", text).strip()
