"""`__all__` is the truth: what a module lends to another is in it, and nothing private is lent."""

from __future__ import annotations

import ast
from pathlib import Path

import clipq

PACKAGE = Path(clipq.__file__).parent


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("clipq", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def public(tree: ast.Module) -> set[str] | None:
    """The names in a module's `__all__`; None where it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def borrowed() -> set[tuple[str, str, str]]:
    """Every (module, lender, name) that a module imports from another of the package."""
    return {
        (module, node.module, alias.name)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES
    }


# Being put right elsewhere: whoever adds a name to its `__all__` deletes its line.
KNOWN = {
    ("clipq.gating.baseline", "json_path"),
    ("clipq.gating.baseline", "load_environment"),
    ("clipq.gating.baseline", "load_values"),
}


def test_a_name_that_another_module_imports_is_in_all():
    wrong = {
        (lender, name): module
        for module, lender, name in sorted(borrowed())
        if name not in (public(TREES[lender]) or set())
    }
    assert {name: module for name, module in wrong.items() if name not in KNOWN} == {}
    assert wrong.keys() >= KNOWN, "a name that is public by now is still listed"


def test_no_module_reaches_into_another_for_a_private_name():
    wrong = [
        f"{module} imports {name} of {lender}"
        for module, lender, name in sorted(borrowed())
        if name.startswith("_") and not name.startswith("__")
    ]
    for module, tree in TREES.items():
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in MODULES
            for alias in node.names
            if f"{node.module}.{alias.name}" in MODULES
        }
        wrong += [
            f"{module} uses {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in names
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
        ]
    assert wrong == []
