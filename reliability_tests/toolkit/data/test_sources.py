"""Kinds of storage: looked at before they are opened, also those of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipq.data import Source, fetch_probe, look_at_probe, probe_sources
from clipq.errors import ProbeError, SettingsError, UnknownNameError

FIXTURES = Path(__file__).parents[3] / "fixtures"


def seen(source: str, base_dir: Path, *, role: str = "in-distribution", split: str = "test"):
    return look_at_probe(name="p", role=role, source=source, split=split, base_dir=base_dir)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Four images in two folders; beside them a list of three of them."""
    for file in ("grey_fox/a.png", "grey_fox/deep/b.JPG", "owl/a.webp", "owl/c.jpeg"):
        path = tmp_path / "birds" / "test" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)
    (tmp_path / "birds" / "test" / "owl" / "notes.txt").write_text("no image")
    (tmp_path / "birds" / "list.txt").write_text(
        "test/owl/a.webp 0\ntest/owl/c.jpeg 0\ntest/grey_fox/a.png 1\n"
    )
    return tmp_path


class TestOwnSources:
    def test_shards_and_classes_are_counted(self):
        found = seen("webdataset:data/shapes", FIXTURES)
        assert found == {"shards": 2, "classes": 16}

    def test_folders_and_images_are_counted(self, birds):
        assert seen("folder:birds", birds) == {"classes": 2, "images": 4}

    def test_the_lines_of_a_list_are_counted(self, birds):
        found = seen("imagelist:birds", birds, role="ood", split="list.txt")
        assert found == {"classes": 0, "images": 3}

    def test_saved_data_sets_and_parquet_files_are_counted(self, tmp_path):
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "test-0.parquet").touch()
        assert seen("huggingface:d", tmp_path) == {"files": 1}
        assert seen("huggingface:d/test-0.parquet", tmp_path) == {"files": 1}
        (tmp_path / "e" / "test").mkdir(parents=True)
        (tmp_path / "e" / "dataset_dict.json").write_text('{"splits": ["test"]}')
        (tmp_path / "e" / "test" / "data-00000-of-00001.arrow").touch()
        assert seen("huggingface:e", tmp_path) == {"files": 1}

    def test_of_a_data_set_of_the_hub_nothing_is_known(self, tmp_path):
        assert seen("huggingface:some/thing", tmp_path) == {}

    def test_torchvision_s_folder_is_looked_for(self, tmp_path):
        (tmp_path / "files" / "cifar-10-batches-py").mkdir(parents=True)
        assert seen("torchvision:CIFAR10@files", tmp_path) == {"classes": 10}

    @pytest.mark.parametrize(
        ("source", "split", "complaint"),
        [
            ("folder:birds", "tset", "no folder"),
            ("folder:bards", "test", "no folder"),
            ("folder:birds/test/grey_fox/deep", ".", "has no folders"),
            ("imagelist:birds", "lost.txt", "no list of images"),
            ("imagelist:birds", "list.txt", "classnames.txt"),
            ("webdataset:birds", "test", "cannot be read"),
            ("webdataset:bards", "test", "no folder"),
            ("webdataset:https://example.org/d", "test", "nothing is downloaded unasked"),
            ("torchvision:CIFAR100@birds", "test", "is not whole"),
            ("torchvision:CIFAR11@birds", "test", "torchvision data set"),
            ("huggingface:birds", "test", "neither Parquet files of split 'test' nor"),
        ],
    )
    def test_what_opening_would_refuse_is_seen(self, birds, source, split, complaint):
        with pytest.raises(ProbeError, match=complaint):
            seen(source, birds, split=split)

    def test_shards_that_are_announced_and_not_there(self, tmp_path):
        root = tmp_path / "d"
        (root / "test").mkdir(parents=True)
        (root / "test" / "nshards.txt").write_text("3")
        (root / "test" / "1.tar").touch()
        with pytest.raises(ProbeError, match=r"no shard .*0\.tar, nor 1 others"):
            seen("webdataset:d", tmp_path, role="retrieval")

    def test_an_image_of_a_list_that_is_not_there(self, birds):
        (birds / "birds" / "test" / "owl" / "a.webp").unlink()
        with pytest.raises(ProbeError, match="which is not there"):
            seen("imagelist:birds", birds, role="ood", split="list.txt")

    def test_what_lies_here_is_not_fetched(self, birds):
        def fail(ready: int, total: int) -> None:
            raise AssertionError

        for source in ("folder:birds", "webdataset:birds"):
            arguments = {"name": "p", "split": "test", "base_dir": birds, "progress": fail}
            assert fetch_probe(source=source, **arguments) is None

    def test_a_source_that_nobody_registered(self, tmp_path):
        with pytest.raises(UnknownNameError, match="did you mean 'folder'"):
            seen("foldr:birds", tmp_path)
        with pytest.raises(SettingsError, match="not of the form kind:location"):
            seen("birds", tmp_path)


MODULE = """
from clipq.data import open_probe, probe_sources
from clipq.errors import ProbeError

def look(location, *, name, role, split, base_dir):
    if location == "gone":
        raise ProbeError(f"probe {name!r}: the lake has no {location!r}", hint="fill the lake")
    return {"buckets": 7}

@probe_sources.register("lake", look=look)
def lake(location, *, split, **options):
    return open_probe(source=f"webdataset:{location}", split=split, **options)

@probe_sources.register("pond")
def pond(location, *, split, **options):
    return open_probe(source=f"webdataset:{location}", split=split, **options)
"""


class TestSourcesOfOthers:
    @pytest.fixture
    def theirs(self, project):
        """A project whose in-distribution probe is of a plugin's source with a look."""
        (project.root / "waters.py").write_text(MODULE)
        path = project.settings(extra="plugins = ['waters']")
        path.write_text(path.read_text().replace('"webdataset:', '"lake:', 1))
        return project

    def test_the_doctor_and_the_check_ask_the_source(self, theirs):
        doctor = theirs.clipq("doctor")
        assert "3 of 3 are there" in doctor.stdout, doctor.stdout + doctor.stderr
        check = theirs.clipq("probe", "check", "id", "--sheets", "sheets")
        assert check.returncode == 0, check.stdout + check.stderr
        assert "shapes, 7 buckets" in check.stdout

    def test_what_the_source_sees_is_a_problem(self, theirs):
        path = theirs.root / "clipq.toml"
        path.write_text(re_sourced(path.read_text(), "lake:gone"))
        for command in (("doctor",), ("probe", "check", "id")):
            done = theirs.clipq(*command)
            assert done.returncode == 1, done.stdout + done.stderr
            assert "the lake has no 'gone'" in done.stdout
            assert "fill the lake" in done.stdout

    def test_a_source_without_a_look_is_said_to_be_opened_by_the_check(self, theirs):
        path = theirs.root / "clipq.toml"
        path.write_text(path.read_text().replace('"lake:', '"pond:'))
        doctor = theirs.clipq("doctor")
        assert "nothing is known of it before it is opened" in doctor.stdout
        assert "fix: clipq probe check id" in doctor.stdout
        assert "2 of 3 are there" in doctor.stdout

    def test_one_that_an_installed_package_provides(self, tmp_path, monkeypatch):
        (tmp_path / "springs.py").write_text(
            "class Spring:\n"
            "    def __call__(self, location, **options): raise NotImplementedError\n"
            "    def look(self, location, **options): return {'wells': 2}\n"
            "spring = Spring()\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        point = EntryPoint("spring", "springs:spring", "clipq.probes")
        monkeypatch.setattr(probe_sources, "_entry_points", {"spring": point})
        monkeypatch.setattr(probe_sources, "_objects", dict(probe_sources._objects))
        assert seen("spring:anything", tmp_path) == {"wells": 2}

    def test_a_look_that_breaks_is_one_problem(self, tmp_path, monkeypatch):
        def look(location, **options):
            raise KeyError("index")

        monkeypatch.setattr(probe_sources, "_objects", dict(probe_sources._objects))
        probe_sources.add("brook", Source(open=look, look=look))
        with pytest.raises(ProbeError, match=r"looking at brook:x failed: KeyError\('index'\)"):
            seen("brook:x", tmp_path)


def re_sourced(text: str, source: str) -> str:
    before, _, rest = text.partition('"lake:')
    return f'{before}"{source}"{rest.partition(chr(34))[2]}'
