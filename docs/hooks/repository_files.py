"""Put what pages link to outside of docs/ on the site, below source/.

Pages link to CHANGELOG.md, to benchmarks and to code with paths that work in the repository. On the
site each such file becomes a page of its own: Markdown as it is, anything else as a listing.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
_LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".ini": "ini", ".json": "json"}
_ALWAYS = ("CHANGELOG.md",)
_FOLDER = "source"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside of docs/ that some page links to, links of links too."""
    root = Path(config.config_file_path).parent
    waiting = list(_ALWAYS)
    for file in files.documentation_pages():
        waiting += _linked(f"docs/{file.src_uri}", file.content_string, root)
    added: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in added:
            continue
        added.add(path)
        text = (root / path).read_text(encoding="utf-8")
        if path.endswith(".md"):
            waiting += _linked(path, text, root)
        else:
            text = _listing(path, text)
        files.append(File.generated(config, f"{_FOLDER}/{_page(path)}", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ (and back into it) into links between pages."""
    root = Path(config.config_file_path).parent
    uri = page.file.src_uri
    here = uri.removeprefix(f"{_FOLDER}/") if uri.startswith(f"{_FOLDER}/") else f"docs/{uri}"

    def site_path(match: re.Match[str]) -> str:
        target = normpath(f"{Path(here).parent.as_posix()}/{match[1]}")
        if target.startswith("docs/"):
            target = target.removeprefix("docs/")
        elif (root / target).is_file():
            target = f"{_FOLDER}/{_page(target)}"
        else:
            return match[1]  # mkdocs names it
        return relpath(target, Path(uri).parent.as_posix())

    return _LINK.sub(site_path, markdown)


def _linked(page: str, text: str, root: Path) -> list[str]:
    targets = [normpath(f"{Path(page).parent.as_posix()}/{link}") for link in _LINK.findall(text)]
    return [t for t in targets if not t.startswith(("docs/", "..")) and (root / t).is_file()]


def _page(path: str) -> str:
    return path if path.endswith(".md") else f"{path}.md"


def _listing(path: str, text: str) -> str:
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text}\n````\n"
