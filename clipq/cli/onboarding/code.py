"""Models and quantizers that Python code names, found by parsing it; it is never imported."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clipq.cli.onboarding.walk import Walk

__all__ = ["CodeFindings", "read_code"]

_LARGEST_BYTES = 1_000_000
_MOST_FILES = 3_000
_CREATORS = ("create_model_and_transforms", "create_model", "create_model_from_pretrained")
_HUB = re.compile(r"hf-hub:[\w.-]+/[\w.-]+")
_WEIGHTS_FILE = re.compile(r"\.(pt|pth|bin|ckpt|safetensors)$|[/\\]")


@dataclass(slots=True)
class CodeFindings:
    """What code says.

    Args:
        models: open_clip sources, ``ARCH/TAG`` or ``hf-hub:ORG/NAME``, to where they are named.
        quantizers: registered names to the module that registers each.
        notes: what was seen but cannot be used as it is.
    """

    models: dict[str, str] = field(default_factory=dict)
    quantizers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_code(walk: Walk) -> CodeFindings:
    """Parse the Python files of a walk."""
    findings = CodeFindings()
    files = (path for path in _python_files(walk) if not _is_test(path))
    for number, path in enumerate(files):
        if number == _MOST_FILES:
            findings.notes.append(f"only the first {_MOST_FILES:,} Python files were read")
            break
        tree = _parsed(walk.root / path, str(path), findings)
        if tree is not None:
            _read(tree, path, findings)
    return findings


def _python_files(walk: Walk) -> Iterator[PurePosixPath]:
    for folder in walk.folders.values():
        yield from (folder.path / name for name in folder.files if name.endswith(".py"))


def _parsed(path: Path, shown: str, findings: CodeFindings) -> ast.Module | None:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in others' code
            return ast.parse(path.read_bytes())
    except OSError as error:
        findings.notes.append(f"{shown} cannot be read: {error.strerror or error}")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass  # Python 2, templates, damaged files: nothing that could be run here
    return None


def _read(tree: ast.Module, path: PurePosixPath, findings: CodeFindings) -> None:
    constants = dict(_constants(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _HUB.fullmatch(node.value):
                findings.models.setdefault(node.value, f"{path}:{node.lineno}")
        elif isinstance(node, ast.Call) and _last_name(node.func) in _CREATORS:
            _created(node, constants, f"{path}:{node.lineno}", findings)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            for name in _registered(node):
                _register(name, path, findings)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield names that a module gives a text, and the text."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                    yield target.id, node.value.value


def _created(
    call: ast.Call, constants: Mapping[str, str], where: str, findings: CodeFindings
) -> None:
    """Note the model of ``create_model...("ViT-B-32", pretrained="laion2b_s34b_b79k")``."""
    arguments: dict[str, ast.expr] = dict(
        zip(("model_name", "pretrained"), call.args, strict=False)
    )
    arguments |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    architecture = _text(arguments.get("model_name"), constants)
    tag = _text(arguments.get("pretrained"), constants)
    if not architecture or architecture.startswith(("hf-hub:", "local-dir:")):
        return
    if not tag:
        findings.notes.append(
            f"{where} makes {architecture!r} without a pretrained tag in plain text"
        )
    elif _WEIGHTS_FILE.search(tag):
        findings.notes.append(
            f"{where} loads {tag!r}: put it into a folder with open_clip_config.json and use "
            "local-dir:FOLDER"
        )
    else:
        findings.models.setdefault(f"{architecture.replace('/', '-')}/{tag}", where)


def _text(node: ast.expr | None, constants: Mapping[str, str]) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return constants.get(node.id, "") if isinstance(node, ast.Name) else ""


def _registered(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """Yield the names that ``@quantizers.register("name")`` gives a definition."""
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call) or not decorator.args:
            continue
        function, first = decorator.func, decorator.args[0]
        if (
            isinstance(function, ast.Attribute)
            and function.attr == "register"
            and _last_name(function.value) == "quantizers"
            and isinstance(first, ast.Constant)
            and isinstance(first.value, str)
        ):
            yield first.value


def _register(name: str, path: PurePosixPath, findings: CodeFindings) -> None:
    parts = path.with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if not parts or not all(part.isidentifier() for part in parts):
        findings.notes.append(
            f"{path} registers the quantizer {name!r}, but is no importable module"
        )
    elif name in findings.quantizers:
        findings.notes.append(f"{path} registers the quantizer {name!r} once more: it is left out")
    else:
        findings.quantizers[name] = ".".join(parts)


def _is_test(path: PurePosixPath) -> bool:
    """Whether a file holds tests: what they name need not exist."""
    return path.name.startswith(("test_", "conftest")) or any(
        part in ("tests", "test", "testing") or part.endswith("_tests") for part in path.parts
    )


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
