"""The code blocks of a documentation page, and what its author says about each.

A block's language says how it is tested; see `page_session`. `title="NAME"` behind the language
makes it the file NAME of the page's project. A comment directly above a block marks it:

    <!-- test: needs-cuda -->           Python that is compiled; run only where there is a GPU
    <!-- test: parsed, REASON -->       commands that are parsed and not run; REASONS are few
    <!-- test: exits N -->              commands that end with this exit status
    <!-- test: bare -->                 commands of a reader who has no settings and baselines yet
    <!-- test: output -->               text whose lines the block above it printed

Anything else in such a comment is an error: nothing is left out by a word nobody knows.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[3]
REASONS = ("gpu", "installation", "minutes", "network")
_MARK = re.compile(r"<!--\s*test:\s*(.*?)\s*-->")
_LEGAL = re.compile(rf"bare|needs-cuda|output|exits \d+|parsed, ({'|'.join(REASONS)})")
_SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One code block; `mark` is "" where its author said nothing."""

    page: str
    line: int
    language: str
    title: str
    mark: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return every page that readers see: the site's and the README."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("**/*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order, snippets of files filled in.

    Raises:
        ValueError: a mark is not legal, or stands above no block.
    """
    name = page.relative_to(REPOSITORY).as_posix()
    found, mark = [], ""
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block" and (given := _MARK.search(token.content)):
            mark = given[1]
            if not _LEGAL.fullmatch(mark):
                raise ValueError(f"{name}:{line}: unknown mark {mark!r}")
        elif token.type in ("fence", "code_block"):
            language, title = _information(token.info)
            if token.type == "code_block":
                language = "indented"
            found.append(Block(name, line, language, title, mark, _filled(token.content)))
            mark = ""
        elif mark and not token.type.endswith(("_open", "_close")):
            raise ValueError(f"{name}:{line}: mark {mark!r} stands above no block")
    return found


def _information(info: str) -> tuple[str, str]:
    """Return language and title of a fence's information."""
    language, *rest = shlex.split(info) or [""]
    named = dict(word.split("=", 1) for word in rest if "=" in word)
    return language, named.get("title", "")


def _filled(text: str) -> str:
    return _SNIPPET.sub(lambda match: (REPOSITORY / match[1]).read_text(encoding="utf-8"), text)
