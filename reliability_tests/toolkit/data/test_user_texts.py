"""Texts that users write: with or without a byte order mark, from any system, by one reader."""

from __future__ import annotations

import ast
import codecs
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipq
from clipq.data import open_declared
from clipq.errors import ProbeError
from clipq.gating.margins import load_margins
from clipq.gating.waivers import load_waivers
from clipq.settings import ProbeSettings, load_settings

REPOSITORY = Path(__file__).parents[3]
PACKAGE = Path(clipq.__file__).parent
MARK = codecs.BOM_UTF8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with every text that may lie beside it, each begun by a byte order mark."""
    for number in range(20):
        path = tmp_path / "d" / "test" / ("cat", "owl")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
    files = sorted(
        path.relative_to(tmp_path / "d" / "test").as_posix() for path in tmp_path.rglob("*.png")
    )
    texts = {
        "classnames.txt": "Katze\nEule",
        "zeroshot_classification_templates.txt": "ein {c}",
        "attributes.csv": "file,tone\n" + "\n".join(f"{f},light" for f in files),
        "classmap.csv": "class,head_class\nKatze,cat\nEule,owl",
        "list.txt": "\n".join(f"test/{f} {n // 10}" for n, f in enumerate(files)),
        "mine.txt": "Kater\nUhu",
    }
    for name, text in texts.items():
        (tmp_path / "d" / name).write_bytes(MARK + text.encode())
    return tmp_path


def opened(root: Path, **changes):
    return open_declared(
        ProbeSettings("p", "shift", **({"source": "folder:d"} | changes)), base_dir=root
    )


def test_a_byte_order_mark_is_read_as_if_it_were_absent(root):
    probe = opened(root, group="tone")
    assert probe.classnames == ("Katze", "Eule")
    assert probe.templates == ("ein {c}",)
    assert set(probe.groups) == {"light"}
    assert probe.class_map == (("cat",), ("owl",))
    listed = opened(root, source="imagelist:d", split="list.txt")
    assert listed.ids[0] == "test/cat/00.png"
    (root / "d" / "classmap.csv").unlink()
    own = opened(root, classes="d/mine.txt", templates="d/zeroshot_classification_templates.txt")
    assert (own.classnames, own.templates) == (("Kater", "Uhu"), ("ein {c}",))


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n" + MARK.decode()])
def test_lines_may_end_as_on_any_system(root, ending):
    (root / "d" / "classnames.txt").write_bytes(f"Katze{ending}Eule{ending}".encode())
    assert opened(root).classnames == ("Katze", "Eule")


WAIVER = """
[[waiver]]
cases = ["vit-clean/rtn:w8a8/id.top1"]
reason = "a known loss of the old tokenizer"
owner = "ada@example.org"
expires = 2099-01-01
"""


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (load_settings, (REPOSITORY / "clipq.toml").read_bytes()),
        (load_margins, (REPOSITORY / "baselines" / "margins.toml").read_bytes()),
        (load_waivers, WAIVER.encode()),
    ],
    ids=["settings", "margins", "waivers"],
)
def test_settings_margins_and_waivers_may_begin_with_a_byte_order_mark(tmp_path, read, content):
    path = tmp_path / "clipq.toml"
    path.write_bytes(content)
    plain = read(path)
    path.write_bytes(MARK + content)
    assert repr(read(path)) == repr(plain)


@pytest.mark.parametrize("name", ["classnames.txt", "attributes.csv", "classmap.csv"])
@pytest.mark.parametrize(
    ("encoding", "complaint"),
    [
        ("utf-16", "it is UTF-16, as 'Unicode Text' of Excel is"),
        ("latin-1", r"line 2 is not UTF-8: b'.*\\xfc'"),
    ],
)
def test_another_encoding_is_named_with_the_way_out(root, name, encoding, complaint):
    path = root / "d" / name
    text = (
        path.read_bytes()
        .decode("utf-8-sig")
        .replace("\n", "\n\N{LATIN SMALL LETTER U WITH DIAERESIS}", 1)
    )
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ProbeError, match=complaint):
        opened(root, group="tone")


def test_columns_that_no_comma_separates_are_named(root):
    (root / "d" / "attributes.csv").write_text("file;tone\ncat/00.png;light")
    with pytest.raises(ProbeError, match="separate columns by commas, not by ';'"):
        opened(root, group="tone")


def test_a_sample_without_a_value_is_named_with_its_row(root):
    path = root / "d" / "attributes.csv"
    path.write_text(path.read_text("utf-8-sig").replace("cat/04.png,light", "cat/04.png, "))
    with pytest.raises(ProbeError, match=r"1 of 20 .*'cat/04\.png' \(row 3 below the head\)"):
        opened(root, group="tone")
    path.write_text("\n".join(path.read_text().split("\n")[:3]))
    with pytest.raises(ProbeError, match=r"18 of 20 .* \(no row names it\)"):
        opened(root, group="tone")


@pytest.mark.parametrize("called", ["cat\\04.png", "./cat/04.png", "test/cat/04.png"])
def test_a_sample_under_another_name_is_named_with_that_name(root, called):
    path = root / "d" / "attributes.csv"
    path.write_text(path.read_text("utf-8-sig").replace("cat/04.png", called))
    with pytest.raises(ProbeError, match=r"1 of 20 .*\(row 3 below the head calls it") as caught:
        opened(root, group="tone")
    assert repr(called) in str(caught.value)
    assert "'/' between folders, without './'" in str(caught.value)


def test_a_value_is_one_line_and_blanks_around_it_are_none_of_it(root):
    path = root / "d" / "attributes.csv"
    text = path.read_text("utf-8-sig")
    path.write_text(text.replace("cat/04.png,light", 'cat/04.png," light "'))
    assert set(opened(root, group="tone").groups) == {"light"}
    path.write_text(text.replace("cat/04.png,light", 'cat/04.png,"li\nght"'))
    with pytest.raises(ProbeError, match=r"'li\\nght' goes on in the next line"):
        opened(root, group="tone")


OWN = {
    "cli/init.py": "what it has just written",
    "cli/signature.py": "what another program said",
    "data/download.py": "addresses",
    "evaluation/tables.py": "stored columns",
    "evaluation/tower_server.py": "a runtime opens its own files",
    "gating/board.py": "notes between its own processes",
    "gating/latency.py": "what the system says of its processor",
    "history/export.py": "writes",
    "history/site/write.py": "a page that it wrote",
    "pytest_items.py": "what its own workers wrote",
    "runtimes/cpu_flags.py": "what the system says of its processor",
    "shapes.py": "the one reader",
    "web/bundle.py": "package data",
}
"""Modules that read or write text of clipq's own."""


OTHERS = ("Image", "tarfile", "os", "self", "process")
"""Whose `open` opens no text."""


def _reads_text(call: ast.Call) -> bool:
    name, of = getattr(call.func, "id", ""), ""
    if isinstance(call.func, ast.Attribute):
        name, of = call.func.attr, getattr(call.func.value, "id", "")
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = [part.value for part in given if isinstance(part, ast.Constant)]
    if name == "decode":
        return any(text in ("utf-8", "utf8", "utf-8-sig", "latin-1") for text in texts)
    opens = name == "open" and of not in OTHERS
    binary = any("b" in text for text in texts if isinstance(text, str) and len(text) < 4)
    return name == "read_text" or (opens and not binary)


def test_nobody_but_the_one_reader_reads_a_text_of_users():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        calls = [
            node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)
        ]
        lines = [call.lineno for call in calls if _reads_text(call)]
        if lines:
            found[path.relative_to(PACKAGE).as_posix()] = lines
    unexpected = {path: lines for path, lines in found.items() if path not in OWN}
    assert not unexpected, f"read texts by `clipq.shapes.Document`: {unexpected}"
    assert set(found) == set(OWN), "take what reads no text any more from the list"
