"""Small inputs that ended in a traceback, a wait or an endless read once; `benchmarks/fuzzing.py`.

Each is refused with one message now.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from synthetic_runs import synthetic_run

from clipq.cli.history_text import run_text, runs_text
from clipq.cli.onboarding.data import _peek
from clipq.data import look_at_probe, open_probe
from clipq.data.decoding import decode_image
from clipq.data.sealed_images import load
from clipq.errors import CacheError, ClipqError, ModelError, ProbeError, RecordError, StoreError
from clipq.evaluation.tables import TableError, parse_table, read_table
from clipq.gating.baseline import load_values
from clipq.gating.margins import load_margins
from clipq.gating.waivers import load_waivers
from clipq.history.store import open_store
from clipq.history.stored_rows import inflated
from clipq.history.url import parse_url
from clipq.models.source import local_files
from clipq.provenance import sha256_file
from clipq.records import read_run, run_id
from clipq.settings import load_settings

READERS: dict[str, Callable[[Path], object]] = {
    "clipq.toml": load_settings,
    "margins.toml": load_margins,
    "waivers.toml": load_waivers,
    "report.json": read_run,
    "table.safetensors": read_table,
    "images.npy": load,
    "vit.json": lambda path: load_values(path.parent, "vit"),
    "open_clip_config.json": lambda path: local_files(path.parent),
    "SHA256SUMS": lambda path: look(path.parent, "folder"),
    "list.txt": lambda path: look(path.parent, "imagelist", split="list.txt"),
    "dataset_dict.json": lambda path: look(path.parent, "huggingface"),
    "0.tar": lambda path: opened(path.parent),
}


def look(folder: Path, kind: str, split: str = ".") -> object:
    (folder / "cat").mkdir(exist_ok=True)
    return look_at_probe(name="p", role="shift", source=f"{kind}:.", split=split, base_dir=folder)


def opened(folder: Path) -> object:
    (folder / "test").mkdir()
    (folder / "0.tar").rename(folder / "test" / "0.tar")
    (folder / "test" / "nshards.txt").write_text("1")
    return open_probe(name="p", role="retrieval", source="webdataset:.", split="test",
                      base_dir=folder)  # fmt: skip


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "link to itself"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_neither_waited_for_nor_read_without_end(name, what, tmp_path):
    path = tmp_path / name
    (tmp_path / "open_clip_model.safetensors").touch()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "device" else name)
    try:
        READERS[name](path)
    except ClipqError:
        return
    # A baseline or checksums that are no file are as good as absent, which other checks name.
    assert name in ("waivers.toml", "vit.json", "SHA256SUMS")


def test_a_table_whose_header_is_no_object_is_named_as_damaged(tmp_path):
    for header in ("[]", "null", "3", '{"metadata": 1}', "[" * 5000, '{"digest": "x"}'):
        content = save({"a": np.arange(3)}, {"clipq": header})
        (tmp_path / "table").write_bytes(content)
        for read in (read_table, lambda path: parse_table(path.read_bytes(), name="cell")):
            with pytest.raises(TableError, match="not a complete prediction table"):
                read(tmp_path / "table")
    flat = save(
        {"text:id": np.arange(3, dtype=np.uint8)}, {"clipq": '{"digest": 1, "metadata": {}}'}
    )
    (tmp_path / "table").write_bytes(flat)
    with pytest.raises(TableError):
        read_table(tmp_path / "table")


@pytest.mark.parametrize(
    "seal",
    ["{}", "null", "3", "\0", "[" * 5000, '{"key": "", "shape": null, "sha256": []}',
     '{"key": "", "shape": [1e999, 1, 1, 3], "sha256": []}',
     '{"key": "", "shape": [1, 1, 1, 3], "sha256": 1}'],
)  # fmt: skip
def test_an_image_file_whose_seal_is_no_seal_is_named_as_damaged(tmp_path, seal):
    content = bytes(200) + seal.encode() + len(seal).to_bytes(8, "little") + b"clipq-images-1\n"
    (tmp_path / "images.npy").write_bytes(content)
    with pytest.raises(CacheError, match=r"not a complete image file: (?!it has no seal)"):
        load(tmp_path / "images.npy")


def test_an_image_that_is_a_program_is_not_run():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(ProbeError, match="does not decode: cannot identify"):
        decode_image(eps, "sample 1")


def test_a_member_that_claims_to_be_larger_than_anything_is_refused(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.size = 1 << 40
    (tmp_path / "0.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(ProbeError, match="truncated or damaged"):
        opened(tmp_path)


def test_a_link_to_nowhere_in_a_stranger_s_shard_ends_no_init(tmp_path):
    member = tarfile.TarInfo("a.json")
    member.type, member.linkname = tarfile.LNKTYPE, "/etc/passwd"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(member)
    (tmp_path / "0.tar").write_bytes(stream.getvalue())
    assert _peek(tmp_path / "0.tar") == ({"json"}, {})


def test_evidence_of_another_kind_is_refused_when_a_record_is_read():
    plain = json.dumps(synthetic_run(100, seed=1).to_plain())
    for about, name, value in (
        ("probes", "samples", "many"), ("probes", "fingerprint", None),
        ("quantizers", "share", "x"), ("quantizers", "kernels", []), ("quantizers", "bytes", True),
        ("quantizers", "weight_bits", {}),
    ):  # fmt: skip
        changed = json.loads(plain)
        entries = changed["evidence"][about]
        entries[next(iter(entries))][name] = value
        with pytest.raises(RecordError, match=f"evidence.{about}"):
            read_run("report.json", json.dumps(changed | {"id": run_id(changed)}).encode())


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one run whose triggers, which keep rows from being changed, were dropped."""
    folder = tmp_path_factory.mktemp("store")
    whole = synthetic_run(100, seed=1)
    with open_store("sqlite:///h.db", root=folder) as store:
        store.record(replace(whole, cases=whole.cases[:3], planned=3))
    connection = sqlite3.connect(folder / "h.db")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        connection.execute(f'DROP TRIGGER "{name}"')
    connection.commit()
    connection.close()
    return folder / "h.db"


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("runs", "started", b"\x00"), ("runs", "counts", None), ("runs", "counts", "["),
        ("runs", "remarks", "[1]"), ("runs", "blocks", 3.5), ("runs", "environment", b"{}"),
        ("runs", "planned", "::error::x"), ("runs", "record", 1.5),
        ("runs", "record", zlib.compress(b"[]")), ("results", "loss", "nan"),
        ("results", "observed", b"\x00\x01"), ("results", "verdict", 99),
        ("results", "margin", "a"),
    ],
)  # fmt: skip
def test_a_row_that_was_never_recorded_so_is_named(table, column, value, tmp_path, unguarded):
    shutil.copy(unguarded, tmp_path / "h.db")
    connection = sqlite3.connect(tmp_path / "h.db")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    try:
        connection.execute(f'UPDATE "{table}" SET "{column}" = ?', [value])
    except sqlite3.IntegrityError:
        connection.close()
        return  # the schema itself does not take it
    connection.commit()
    connection.close()
    with pytest.raises(StoreError):
        read_all(tmp_path)


def test_rows_that_were_recorded_are_read(tmp_path, unguarded):
    shutil.copy(unguarded, tmp_path / "h.db")
    read_all(tmp_path)


def read_all(folder: Path) -> None:
    with open_store("sqlite:///h.db", root=folder) as store:
        (run,) = store.runs()
        assert run_text(run, store.results(run))
        assert runs_text([run])
        assert len(store.load(run).cases) == len(store.results(run)) == 3


def test_a_kilobyte_that_stands_for_a_gigabyte_is_not_unpacked():
    bomb = zlib.compress(bytes(50 << 20))
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        inflated(bomb, 1000)
    with pytest.raises(ValueError, match="cut off"):
        inflated(zlib.compress(b"abc" * 99)[:-5], 1000)


@pytest.mark.parametrize(
    "text", ["sqlite:///a.db\npostgresql://u:hunter2@h/d", "sqlite:///a\x1b[2J"]
)
def test_a_store_s_address_of_two_lines_is_refused_and_neither_shown(text, tmp_path):
    with pytest.raises(
        StoreError, match=r"a store URL \(not shown\) holds (2 lines|a character)"
    ) as e:
        parse_url(text, root=tmp_path)
    assert "hunter2" not in str(e.value)
    assert "a.db" not in e.value.problem
    assert parse_url("sqlite:///a.db\n", root=tmp_path).path == tmp_path / "a.db"


def test_weights_that_are_a_pipe_are_named(tmp_path):
    from clipq.models.source import ModelFiles, identify

    os.mkfifo(tmp_path / "weights")
    with pytest.raises(OSError, match="it is no file"):
        sha256_file(tmp_path / "weights")
    with pytest.raises(ModelError, match="cannot be read: it is no file"):
        identify(ModelFiles(tmp_path / "weights", tmp_path / "weights", ()))
