"""Parquet files are a split by their whole name; values that lack are named with their row."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipq.data import facts_of_files, look_at_probe, open_declared
from clipq.data.parquet_files import parquet_files
from clipq.errors import ProbeError
from clipq.settings import ProbeSettings

ROWS = 4
HASH = "0123456789abcdef"


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def touched(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


class TestSplitNames:
    @pytest.mark.parametrize(
        ("split", "files", "taken"),
        [
            ("test", "test.parquet test_hard-00000-of-00001.parquet", "test.parquet"),
            (
                "test",
                "test-0.parquet test-1.parquet tests.parquet",
                "test-0.parquet test-1.parquet",
            ),
            ("test", f"test-00000-of-00001-{HASH}.parquet", f"test-00000-of-00001-{HASH}.parquet"),
            ("test", "test/0.parquet test_hard/0.parquet train/0.parquet", "test/0.parquet"),
            ("val", "validation-00000-of-00001.parquet val2.parquet", ""),
            ("val", "validation.parquet val-00000-of-00001.parquet", "val-00000-of-00001.parquet"),
            ("a.b", "a.b.parquet axb.parquet", "a.b.parquet"),
            ("te*", "test.parquet", ""),
            (
                "test",
                "test-1-of-2.parquet test-2-of-2.parquet",
                "test-1-of-2.parquet test-2-of-2.parquet",
            ),
            ("test", "test.1.parquet test.2.parquet", "test.1.parquet test.2.parquet"),
            ("imagenet", "imagenet-2012.parquet imagenet-2017.parquet", ""),
            ("test", "test.parquet test-2020.parquet test-224.parquet", "test.parquet"),
            ("test", "test-0-of-1.parquet test_2020.parquet", "test-0-of-1.parquet"),
            ("fold1", "fold1.parquet fold3.parquet", "fold1.parquet"),
            ("test", "test/2012.parquet test/2017.parquet", "test/2012.parquet test/2017.parquet"),
            ("test", "data/test-0-of-1.parquet data/train.parquet", "data/test-0-of-1.parquet"),
            ("data", "data/data.parquet", "data/data.parquet"),
        ],
    )
    def test_a_split_takes_its_own_files_alone(self, tmp_path, split, files, taken):
        touched(tmp_path, *files.split())
        found = parquet_files(tmp_path, split, "p")
        assert [path.relative_to(tmp_path).as_posix() for path in found] == taken.split()

    @pytest.mark.parametrize(
        ("files", "complaint"),
        [
            ("test-00000-of-00003.parquet test-00002-of-00003.parquet", "missing: 1"),
            ("test-00000-of-00001.parquet test-00000-of-00002.parquet", "more than once"),
            ("test-00000-of-00001.parquet test.parquet", "more than once"),
            ("test.parquet test/a.parquet", "more than once"),
            (
                "test-00000-of-00001.parquet test_00000_of_00001.parquet",
                "which has 1 part; .*twice",
            ),
            ("test-1.parquet test-3.parquet", "holds 2 files .* numbered up to 3; missing: 2"),
            ("test_0.parquet test_1.parquet test_2020.parquet", "missing: 2, 3, 4, 5, 6, 7"),
            ("test-0.parquet test_0.parquet", "twice"),
            ("test-0-of-2.parquet test-1-of-2.parquet test-5-of-2.parquet", "too high"),
            ("test-0-of-99999999999999.parquet", "holds 1 file .*missing: 1, 2, 3"),
            ("test/0000.parquet test/0002.parquet", "missing: 1"),
            ("test/a-00000-of-00002.parquet", "missing: 1"),
            ("test.parquet data/test.parquet", "more than once"),
            ("data/test-00001-of-00002.parquet", "missing: 0"),
        ],
    )
    def test_half_a_split_or_two_versions_of_it_are_refused(self, tmp_path, files, complaint):
        touched(tmp_path, *files.split())
        with pytest.raises(ProbeError, match=complaint):
            parquet_files(tmp_path, "test", "p")

    def test_files_that_are_nearly_the_split_are_named(self, tmp_path):
        touched(tmp_path / "d", "validation-00000-of-00001.parquet")
        where = {"name": "p", "role": "ood", "source": "huggingface:d", "base_dir": tmp_path}
        with pytest.raises(
            ProbeError, match=r"no files of it are validation-00000-of-00001\.parquet"
        ):
            look_at_probe(split="val", **where)

    def test_a_pointer_of_git_lfs_is_no_file(self, tmp_path):
        pointer = touched(tmp_path, "test.parquet") / "test.parquet"
        pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        for location in (tmp_path, pointer):
            with pytest.raises(ProbeError, match="git lfs pull"):
                parquet_files(location, "test", "p")


class TestGaps:
    """Each value that a row lacks is a named error: never the text "None", never a TypeError."""

    @pytest.fixture
    def stored(self, tmp_path):
        datasets = pytest.importorskip("datasets")

        def store(folder="", **changes):
            rows = {
                "image": [{"bytes": png(row), "path": None} for row in range(ROWS)],
                "label": [row % 2 for row in range(ROWS)],
                "id": [f"r{row}" for row in range(ROWS)],
                "tone": ["light"] * ROWS,
                "age": [1.0] * ROWS,
                "kind": [0, 1, 1, 0],
                "caption": [[f"image {row}"] for row in range(ROWS)],
            } | changes
            text = datasets.Value("string")
            features = datasets.Features(
                image=datasets.Image(),
                label=datasets.ClassLabel(names=["owl", "newt"]),
                id=text,
                tone=text,
                age=datasets.Value("float64"),
                kind=datasets.ClassLabel(names=["photo", "sketch"]),
                caption=datasets.Sequence(text),
            )
            (tmp_path / "d" / folder).mkdir(parents=True, exist_ok=True)
            table = datasets.Dataset.from_dict(rows, features=features)
            table.to_parquet(tmp_path / "d" / folder / "test-00000-of-00001.parquet")

        return store

    def opened(self, tmp_path, **changes):
        declared = ProbeSettings("p", "shift", "huggingface:d")
        return open_declared(replace(declared, **changes), base_dir=tmp_path)

    def test_which_files_were_read_is_said(self, stored, tmp_path):
        stored()
        touched(tmp_path / "d", "test_hard-00000-of-00001.parquet")
        probe = self.opened(tmp_path)
        assert probe.ids == ("r0", "r1", "r2", "r3")
        assert facts_of_files(probe) == [("read from", "test-00000-of-00001.parquet")]

    def test_a_clone_of_a_repository_is_a_data_set_and_one_of_configurations_is_named(
        self, stored, tmp_path
    ):
        stored(folder="data")
        probe = self.opened(tmp_path, cluster="kind")
        assert facts_of_files(probe)[0] == ("read from", "data/test-00000-of-00001.parquet")
        assert probe.clusters == ("kind=photo", "kind=sketch", "kind=sketch", "kind=photo")
        (tmp_path / "d" / "data").rename(tmp_path / "d" / "plain")
        said = r"no files of it are plain/test-00000-of-00001\.parquet[\s\S]*a folder below it"
        with pytest.raises(ProbeError, match=said):
            self.opened(tmp_path)

    @pytest.mark.parametrize("column", ["image", "caption"])
    def test_what_is_no_single_value_is_no_attribute(self, stored, tmp_path, column):
        stored()
        for option in ("cluster", "group"):
            with pytest.raises(ProbeError, match=f"column '{column}' is .*: no attribute"):
                self.opened(tmp_path, **{option: column})

    @pytest.mark.parametrize(
        ("changes", "options", "complaint"),
        [
            ({"image": [None]}, {}, "row 1 .* has no image"),
            ({"label": [None]}, {}, "1 of 4 rows have no 'label', first row 1"),
            ({"label": [-1]}, {}, "row 1 .* has -1"),
            ({"id": [None]}, {}, "1 of 4 rows have no 'id', first row 1"),
            ({"tone": [None]}, {"group": "tone"}, "no 'tone', first row 1 .*None"),
            ({"tone": [" "]}, {"group": "tone"}, "no 'tone', first row 1"),
            ({"age": [float("nan")]}, {"group": "age"}, "no 'age', first row 1 .*nan"),
            ({"kind": [-1]}, {"group": "kind"}, "row 1 .* has -1 as 'kind', which names 2 classes"),
            ({"caption": [None]}, {"role": "retrieval"}, "row 1 of column 'caption' .*None"),
            ({"caption": [[]]}, {"role": "retrieval"}, r"row 1 of column 'caption' .*\[\]"),
            ({"caption": [["a", None]]}, {"role": "retrieval"}, "row 1 of column .*None"),
            ({"caption": [[""]]}, {"role": "retrieval"}, "sample 'r1'"),
        ],
    )
    def test_the_row_is_named(self, stored, tmp_path, changes, options, complaint):
        good = {
            "image": [{"bytes": png(row), "path": None} for row in range(ROWS)],
            "label": [row % 2 for row in range(ROWS)],
            "id": [f"r{row}" for row in range(ROWS)],
            "tone": ["light"] * ROWS,
            "age": [1.0] * ROWS,
            "kind": [0] * ROWS,
            "caption": [["a"]] * ROWS,
        }
        stored(**{key: [good[key][0], *value, *good[key][2:]] for key, value in changes.items()})
        with pytest.raises(ProbeError, match=complaint):
            self.opened(tmp_path, **options)

    def test_captions_that_nobody_asks_for_may_lack(self, stored, tmp_path):
        stored(caption=[["a"], None, ["b"], ["c"]])
        assert self.opened(tmp_path).captions is None
