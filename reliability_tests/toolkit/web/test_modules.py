"""Report, trend site and study are pages of one folder: what several need stands there once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

import clipq.web
from clipq.web.bundle import imports, modules, page_script, page_styles

FOLDER = Path(clipq.web.__file__).parent
MODULES = {
    path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(FOLDER.rglob("*.js"))
}
PAGES = ("report/main.js", "site/main.js", "study/main.js")
DECLARED = re.compile(r"^(export )?(?:async )?(?:function|const|let) (\w+)", re.MULTILINE)
FUNCTION = re.compile(r"^(?:export )?(?:async )?function (\w+)\((.*?)^}", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"^([^\s@}/][^{]*?) \{([^}]*)\}", re.MULTILINE)


def declared(name: str, *, exported: bool = False) -> set[str]:
    return {found for export, found in DECLARED.findall(MODULES[name]) if export or not exported}


def test_a_name_is_declared_once_in_all_pages_and_what_they_share():
    places = defaultdict(list)
    for module in MODULES:
        for name in declared(module):
            places[name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_two_functions_do_the_same():
    places = defaultdict(list)
    for module, text in MODULES.items():
        for name, body in FUNCTION.findall(text):
            places[" ".join(body.split())].append(f"{module}: {name}")
    assert [found for found in places.values() if len(found) > 1] == []


def test_no_style_is_given_by_two_pages():
    rules = [
        set(RULE.findall((FOLDER / f"{page}/{page}.css").read_text()))
        for page in ("report", "site", "study")
    ]
    assert all(len(found) > 30 for found in rules)
    assert [one & other for one, other in combinations(rules, 2)] == [set()] * 3


def test_a_page_takes_from_the_shared_modules_and_from_no_other_page():
    for page in PAGES:
        own = page.partition("/")[0]
        folders = {module.partition("/")[0] for module in modules(page)}
        assert folders == {own, "shared"}
    times = Counter(module for page in PAGES for module in modules(page))
    several = {module for module, count in times.items() if count > 1}
    assert several == {module for module in MODULES if module.startswith("shared/")}


def test_every_module_is_part_of_a_page_and_every_export_is_used():
    assert {module for page in PAGES for module in modules(page)} == set(MODULES)
    taken = defaultdict(set)
    for module in MODULES:
        for source, names in imports(module).items():
            taken[source] |= set(names)
    assert {module: declared(module, exported=True) for module in MODULES} == {
        module: taken[module] for module in MODULES
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_given_one_script_without_imports_each_module_below_those_that_need_it(page):
    text = page_script(page)
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    assert text.startswith('(() => {\n"use strict";\n')
    found = modules(page)
    assert found[-1] == page
    for place, module in enumerate(found):
        assert set(imports(module)) <= set(found[:place])
        for name in declared(module):
            assert (
                len(re.findall(rf"^(?:async )?(?:function|const|let) {name}\b", text, re.MULTILINE))
                == 1
            )


def test_all_pages_have_the_same_colours_and_print_rules():
    pages = [page_styles(f"{page}/{page}.css") for page in ("report", "site", "study")]
    for name in ("theme", "layout", "tables", "charts", "print"):
        shared = (FOLDER / f"shared/{name}.css").read_text(encoding="utf-8")
        assert all(shared in styles for styles in pages)
