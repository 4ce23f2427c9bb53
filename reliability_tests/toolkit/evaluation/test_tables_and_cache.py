"""Tables and cache entries are whole or absent, and made once."""

from __future__ import annotations

import multiprocessing
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from clipq.errors import CacheError
from clipq.evaluation.cache import Cache
from clipq.evaluation.tables import TableError, read_table, write_table
from clipq.files import write_atomically

COLUMNS = {
    "id": np.array(["a", "bb", "čtyři", ""]),
    "value": np.array([0.1, np.nan, np.inf, -0.0]),
    "label": np.arange(4),
}


def test_a_table_comes_back_with_texts_numbers_and_metadata(tmp_path):
    digest = write_table(tmp_path / "t.safetensors", COLUMNS, {"k": [1, "x"]})
    columns, metadata, read = read_table(tmp_path / "t.safetensors")
    assert metadata == {"k": [1, "x"]}
    assert read == digest
    assert columns["id"].tolist() == COLUMNS["id"].tolist()
    assert np.array_equal(columns["value"], COLUMNS["value"], equal_nan=True)
    assert columns["label"].dtype == np.int64


def test_equal_tables_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_table(tmp_path / name, dict(reversed(COLUMNS.items())), {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "missing"])
def test_a_damaged_table_is_named_not_used(tmp_path, damage):
    path = tmp_path / "t.safetensors"
    write_table(path, COLUMNS, {})
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-9])
    elif damage == "flip":
        content[-20] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(TableError, match=r"t\.safetensors"):
        read_table(path)


def test_a_damaged_cache_entry_is_made_again(tmp_path):
    cache = Cache(tmp_path)
    made = []

    def create():
        made.append(1)
        return dict(COLUMNS), {}

    cache.table("kind", "abcd", create)
    cache.table("kind", "abcd", create)
    assert len(made) == 1
    path = cache.path("kind", "abcd", ".safetensors")
    path.write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"abcd\.safetensors is made again: .* not a complete"):
        columns, _ = cache.table("kind", "abcd", create)
    assert len(made) == 2
    assert columns["label"].tolist() == [0, 1, 2, 3]
    assert cache.read("kind", "abcd")[0]["label"].tolist() == [0, 1, 2, 3]


def test_an_entry_copied_over_another_is_not_taken_for_it(tmp_path):
    cache = Cache(tmp_path)
    places = [("kind", "good"), ("kind", "bad"), ("other", "good")]
    for number, (kind, key) in enumerate(places):
        cache.table(kind, key, lambda number=number: ({"v": np.array([number])}, {}))
    good, *others = [cache.path(kind, key, ".safetensors") for kind, key in places]
    for path in others:
        shutil.copy(good, path)
    for number, (kind, key) in enumerate(places[1:], 1):
        with pytest.warns(UserWarning, match=f"the entry of 'kind/good', not of '{kind}/{key}'"):
            found, _ = cache.table(kind, key, lambda number=number: ({"v": np.array([number])}, {}))
        assert found["v"].tolist() == [number]


def test_no_bit_of_an_entry_changes_what_is_read(tmp_path):
    path, metadata = tmp_path / "t.safetensors", {"coverage": {"share": 0.5, "layers": 3}}
    write_table(path, {"id": np.array(["a", "bb"]), "label": np.arange(2)}, metadata, key="k/1")
    whole, (columns, _, _) = path.read_bytes(), read_table(path, key="k/1")
    refused = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            found, said, _ = read_table(path, key="k/1")
        except TableError:
            refused += 1
            continue
        assert said == metadata
        assert all(np.array_equal(found[name], columns[name]) for name in columns)
    assert refused > 0.95 * len(whole)  # the rest is padding


def _create_slowly(root: Path, counter: Path) -> None:
    def create():
        with counter.open("a") as stream:
            stream.write("x")
        return {"v": np.arange(3)}, {}

    Cache(root).table("kind", "abcd", create)


def test_many_processes_make_an_entry_once(tmp_path):
    counter = tmp_path / "counter"
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_create_slowly, args=(tmp_path / "cache", counter)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert counter.read_text() == "x"


def test_an_unusable_folder_is_one_clear_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(CacheError, match="cannot write"):
        write_atomically(blocked / "inside", b"x")
    with pytest.raises(CacheError, match="cannot use the cache"):
        Cache(blocked).table("kind", "abcd", lambda: ({}, {}))


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    from clipq.files import replace_atomically

    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CacheError, match="No space left"):
        replace_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
