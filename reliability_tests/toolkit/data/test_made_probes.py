"""Probes that a function of the project makes at first use: once, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from clipq.api import open_probe as open_in_python
from clipq.data import fetch_probe, look_at_probe, open_probe
from clipq.data.made_call import _call
from clipq.data.made_folder import Making, _check_layout
from clipq.errors import CacheError, ProbeError

WRITER = '''\
import io, os, tarfile, time
from pathlib import Path
from words import WORD

def shard(folder, count, shade=0, split="train"):
    (folder / split).mkdir()
    (folder / split / "nshards.txt").write_text("1")
    with tarfile.open(folder / split / "0.tar", "w") as tar:
        for at in range(count):
            image = b"P6\\n2 2\\n255\\n" + bytes([at, shade, 0] * 4)
            for kind, content in (("ppm", image), ("txt", f"{WORD} {at}".encode())):
                info = tarfile.TarInfo(f"k{at}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

def pairs(folder, count=3, shade=0, *, progress=None):
    """Write pairs, and count the runs."""
    if progress is not None:
        progress(0, count)
    here = Path(__file__).parent  # what a text names identifies what is made: these are no data
    with (here / f".{'runs'}").open("a") as runs:
        runs.write(f"{os.getpid()}\\n")
    while (here / f".{'wait'}").exists():
        time.sleep(0.01)
    shard(folder, count, shade)
    print("all of it is there")

def fails(folder):
    print("as far as this")
    raise RuntimeError("no such\\nfont")

def dies(folder):
    os.kill(os.getpid(), 9)

def nothing(folder):
    pass

def reads(folder):
    Path(__file__).with_name("secret.txt").read_text()
    shard(folder, 1)

def alone():
    pass
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "clipq.toml").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "make.py").write_text(WRITER)
    (tmp_path / "data" / "words.py").write_text('WORD = "a cat"')
    (tmp_path / "data" / "secret.txt").write_text("x")
    return tmp_path


def opened(project: Path, call: str = "pairs", **given):
    return open_probe(
        name="proxy",
        role="proxy",
        source=f"made:data/make.py:{call}",
        split="train",
        base_dir=project,
        **given,
    )


def runs(project: Path) -> int:
    there = project / "data" / ".runs"
    return len(there.read_text().splitlines()) if there.is_file() else 0


def kept(project: Path) -> list[Path]:
    return [path for path in (project / ".clipq/cache/made").glob("*/*") if path.is_dir()]


def test_a_probe_is_made_once_and_read_ever_after(project, monkeypatch):
    told = []
    assert look_at_probe(
        name="p", role="proxy", source="made:data/make.py:pairs", split="train", base_dir=project
    ) == {}  # fmt: skip
    found = opened(project, progress=lambda *step: told.append(step))
    assert found.captions == ("a cat 0", "a cat 1", "a cat 2")
    assert told == [("making proxy", 0, 0), ("making proxy", 0, 3)]
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is run again
    assert opened(project).fingerprint == found.fingerprint
    assert look_at_probe(
        name="p", role="proxy", source="made:data/make.py:pairs", split="train", base_dir=project
    ) == {"shards": 1}  # fmt: skip
    monkeypatch.chdir(project)
    python = open_in_python("made:data/make.py:pairs", split="train", role="proxy")
    assert python.sample_hashes == found.sample_hashes
    (folder,) = kept(project)
    assert folder.with_suffix(".log").read_text() == "all of it is there\n"


def test_arguments_and_every_edit_make_another_one(project, tmp_path):
    cache = tmp_path / "elsewhere"
    assert len(opened(project, "pairs,count=2,shade=7", cache=cache)) == 2
    (project / "data" / "words.py").write_text('WORD = "a dog"')  # of the same size
    assert opened(project, "pairs,count=2,shade=7", cache=cache).captions[0] == "a dog 0"
    assert (runs(project), len(list((cache / "made").glob("*/*/SHA256SUMS")))) == (2, 2)


def test_what_was_damaged_in_the_cache_is_made_again(project):
    found = opened(project)
    (folder,) = kept(project)
    (folder / "SHA256SUMS").unlink()
    assert opened(project).fingerprint == found.fingerprint
    for damage in (lambda shard: shard.write_bytes(b"half"), Path.unlink):
        damage(folder / "train" / "0.tar")
        with pytest.warns(UserWarning, match="made again"):
            assert opened(project).fingerprint == found.fingerprint
    with pytest.raises(ProbeError, match="no split 'test'"):  # which is no damage
        open_probe(
            name="p",
            role="proxy",
            source="made:data/make.py:pairs",
            split="test",
            base_dir=project,
        )
    assert runs(project) == 4


def test_two_that_ask_at_once_have_it_made_once(project):
    found: list[str] = []
    both = [Thread(target=lambda: found.append(opened(project).fingerprint)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert (len(set(found)), len(found), runs(project)) == (1, 2, 1)


def test_a_process_that_is_killed_leaves_nothing_half_made(project):
    (project / "data" / ".wait").touch()
    code = (
        "from pathlib import Path; from clipq.data import open_probe; open_probe(name='p', "
        "role='proxy', source='made:data/make.py:pairs', split='train', base_dir=Path('.'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=project)
    try:
        deadline = time.monotonic() + 60
        while not runs(project) and time.monotonic() < deadline:
            time.sleep(0.02)
        (maker,) = map(int, (project / "data" / ".runs").read_text().split())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while _lives(maker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(maker)  # its maker ends with it
    (half,) = kept(project)
    assert half.name.startswith(".")
    (project / "data" / ".wait").unlink()
    assert len(opened(project)) == 3
    (whole,) = kept(project)
    assert half.name.startswith(f".{whole.name}-")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2:3]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("fails", r"make.py:fails failed, make.py line \d+: RuntimeError: no such\nfont"),
        ("dies", "the process of make.py:dies ended with signal SIGKILL"),
        ("nothing", "make.py:nothing wrote nothing into the folder"),
    ],
)
def test_a_function_that_fails_is_named_and_nothing_is_kept(project, call, complaint):
    with pytest.raises(ProbeError, match=f"probe 'proxy'.*{complaint}") as raised:
        opened(project, call)
    assert kept(project) == []
    if call == "fails":
        (log,) = (project / ".clipq/cache/made").glob("*/*.log")
        assert str(log) in str(raised.value)
        assert log.read_text().startswith("as far as this\n")
        assert "raise RuntimeError" in log.read_text()


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("train/1.png", "is not in the layout: train/1.png"),
        ("1.tar", "is not in the layout: 1.tar"),
        ("train/deep/1.tar", "is not in the layout: train/deep/1.tar"),
        ("train/.0.tar", "is not in the layout: train/.0.tar"),
        ("link.tar", "is not in the layout: link.tar"),
        ("classnames.txt", "wrote no shard, only classnames.txt"),
    ],
)
def test_what_is_not_in_the_layout_is_refused(tmp_path, file, complaint):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    if file == "link.tar":
        (tmp_path / file).symlink_to("/")
    else:
        (tmp_path / file).touch()
    making = Making("p", Path("m.py"), "f", {}, frozenset(), (), tmp_path, tmp_path)
    with pytest.raises(ProbeError, match=f"probe 'p': m.py:f .*{complaint}"):
        _check_layout(making, tmp_path)


def called(project: Path, function: str, **arguments: object) -> None:
    path = project / "data" / "make.py"
    folder = project / "out"
    folder.mkdir()
    known = [str(path), str(path.with_name("words.py"))]
    asked = {"path": str(path), "function": function, "arguments": arguments, "known": known}
    _call(asked | {"folder": str(folder)}, lambda done, total: None)


@pytest.mark.parametrize(
    ("function", "arguments", "complaint"),
    [
        ("pair", {}, "no function 'pair'(?s:.*)did you mean 'pairs'"),
        ("alone", {}, "make.py:alone does not take what it is given"),
        ("pairs", {"cuont": 3}, "does not take what it is given: .*'cuont'"),
        ("reads", {}, "make.py:reads reads data/secret.txt, which is no part of"),
    ],
)
def test_what_a_function_may_not_do_is_said(project, function, arguments, complaint):
    with pytest.raises(ProbeError, match=complaint):
        called(project, function, **arguments)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("data/make.py", "not of the form"),
        ("data/make.py:", "not of the form"),
        ("data/make.py:a-b", "not of the form"),
        ("data/make.py:pairs,count", "not of the form"),
        ("data/make.py:pairs,count=1,count=2", "not of the form"),
        ("data/lost.py:pairs", "no file .*lost.py"),
        ("data/make.py:pair", "has no function 'pair'(?s:.*)did you mean 'pairs'"),
    ],
)
def test_a_look_sees_a_source_that_cannot_be(project, source, complaint):
    with pytest.raises(ProbeError, match=complaint):
        look_at_probe(
            name="p", role="proxy", source=f"made:{source}", split="train", base_dir=project
        )


def test_it_can_be_made_ahead_and_a_cache_that_cannot_be_written_is_named(project):
    where = {"name": "p", "source": "made:data/make.py:pairs", "split": "train"}
    steps = []
    folder = fetch_probe(**where, base_dir=project, progress=lambda *step: steps.append(step))
    assert [folder] == kept(project)
    assert steps == [(0, 0), (0, 3)]
    (project / "file").touch()
    with pytest.raises(CacheError, match="cannot write"):
        opened(project, cache=project / "file")
