"""Declared probes: narrowed, mapped to the head's classes, fit for their role, in other formats."""

from __future__ import annotations

import csv
import io
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from dataclasses import replace
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from clipq.data import Probe, head_columns, open_declared, open_probe, unreadable_images, without
from clipq.data.decoding import decode_image
from clipq.data.fetch import download_folder, fetch_shards
from clipq.data.shipped_lists import CLASS_LISTS, class_list, template_list, wordnet_names
from clipq.errors import ProbeError
from clipq.settings import AttackSettings, ProbeSettings

COLOURS = ("red", "green", "blue")


def png(seed: int, size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_folder(root: Path, classes: tuple[str, ...], each: int = 12) -> Path:
    for number, name in enumerate(classes):
        (root / "test" / name).mkdir(parents=True)
        for index in range(each):
            (root / "test" / name / f"{index:02d}.png").write_bytes(png(100 * number + index))
    return root


def declared(**changes) -> ProbeSettings:
    return replace(ProbeSettings("p", "shift", "folder:d"), **changes)


class TestSelection:
    def test_a_few_samples_are_always_the_same_and_spread(self, tmp_path):
        write_folder(tmp_path / "d", COLOURS)
        few = open_declared(declared(samples=9), base_dir=tmp_path)
        more = open_declared(declared(samples=10), base_dir=tmp_path)
        assert len(few) == 9
        assert set(few.ids) < set(more.ids)
        assert list(few.ids) == sorted(few.ids)
        whole = open_declared(declared(), base_dir=tmp_path)
        shown = dict(zip(whole.ids, whole.images(), strict=True))
        for name, image in zip(few.ids, few.images(), strict=True):
            assert np.array_equal(np.asarray(image), np.asarray(shown[name]))

    def test_more_samples_than_there_are(self, tmp_path):
        write_folder(tmp_path / "d", COLOURS)
        with pytest.raises(ProbeError, match=r"holds 36 samples, samples = 37"):
            open_declared(declared(samples=37), base_dir=tmp_path)

    def test_an_attack_changes_what_is_evaluated_so_it_changes_the_fingerprint(self, tmp_path):
        write_folder(tmp_path / "d", COLOURS)
        plain = declared(role="adversarial", attack=AttackSettings("fgsm"))
        found = {
            open_declared(replace(plain, attack=attack), base_dir=tmp_path).fingerprint
            for attack in (
                AttackSettings("fgsm"),
                AttackSettings("fgsm", epsilon=3.0),
                AttackSettings("fgsm", against="fp32"),
            )
        }
        assert len(found) == 3


class TestRoles:
    def attributes(self, root: Path, values: list[str], header: str = "file,cue") -> None:
        files = sorted(p.relative_to(root / "test").as_posix() for p in root.rglob("*.png"))
        lines = [f"{file},{value}" for file, value in zip(files, values, strict=True)]
        (root / "attributes.csv").write_text("\n".join([header, *lines]) + "\n")

    def test_spurious_cues_need_common_and_counter(self, tmp_path):
        root = write_folder(tmp_path / "d", COLOURS)
        self.attributes(root, ["common", "other"] * 18)
        with pytest.raises(ProbeError, match="groups common, other"):
            open_declared(declared(role="spurious", group="cue"), base_dir=tmp_path)
        self.attributes(root, ["common", "counter"] * 18)
        found = open_declared(declared(role="spurious", group="cue"), base_dir=tmp_path)
        assert set(found.groups) == {"common", "counter"}

    def test_a_group_with_one_member(self, tmp_path):
        root = write_folder(tmp_path / "d", COLOURS)
        self.attributes(root, ["alone", *["many"] * 35])
        with pytest.raises(ProbeError, match=r"group 'alone' has 1 member\n.*needs 10"):
            open_declared(declared(role="groups", group="cue"), base_dir=tmp_path)

    def test_a_missing_value_names_the_sample(self, tmp_path):
        root = write_folder(tmp_path / "d", COLOURS)
        self.attributes(root, ["", *["a"] * 35])
        with pytest.raises(ProbeError, match=r"1 of 36 samples have no 'cue'.*blue/00\.png"):
            open_declared(declared(role="groups", group="cue"), base_dir=tmp_path)

    @pytest.mark.parametrize("role", ["groups", "spurious"])
    def test_roles_about_groups_need_one(self, tmp_path, role):
        write_folder(tmp_path / "d", COLOURS)
        with pytest.raises(ProbeError, match=f"no group, which its role '{role}'"):
            open_declared(declared(role=role), base_dir=tmp_path)

    def test_retrieval_needs_captions(self, tmp_path):
        write_folder(tmp_path / "d", COLOURS)
        with pytest.raises(ProbeError, match="no captions"):
            open_declared(declared(role="retrieval"), base_dir=tmp_path)


class TestClassMaps:
    HEAD = ("cat", "dog", "crow", "raven")

    def test_equal_classes_need_no_map(self):
        assert head_columns("p", self.HEAD, None, self.HEAD) is None

    def test_a_subset_is_found_by_name(self):
        assert head_columns("p", ("raven", "cat"), None, self.HEAD) == ((3,), (0,))

    def test_several_classes_may_stand_for_one(self):
        found = head_columns("p", ("bird", "dog"), (("crow", "raven"), ("dog",)), self.HEAD)
        assert found == ((2, 3), (1,))

    def test_a_name_that_the_head_has_twice_stands_for_both(self):
        assert head_columns("p", ("a", "b"), None, ("a", "b", "a")) == ((0, 2), (1,))

    @pytest.mark.parametrize(
        ("classes", "mapped", "message"),
        [
            (("cats", "dog"), None, r"no class .* called 'cats'\n.*did you mean 'cat'"),
            (("a", "b"), (("cat",), ("cat",)), "two classes stand for 'cat'"),
            (("cat",), None, "has 1 class"),
        ],
    )
    def test_what_cannot_be_mapped(self, classes, mapped, message):
        with pytest.raises(ProbeError, match=message):
            head_columns("p", classes, mapped, self.HEAD)

    def test_a_file_maps_the_classes_of_the_data(self, tmp_path):
        root = write_folder(tmp_path / "d", ("bird", "dog"))
        path = root / "classmap.csv"
        path.write_text("class,head_class\nbird,crow\nbird,raven\ndog,dog\n")
        assert open_declared(declared(), base_dir=tmp_path).class_map == (
            ("crow", "raven"),
            ("dog",),
        )
        path.write_text("class,head_class\nbird,crow\n")
        with pytest.raises(ProbeError, match="no line for class 'dog'"):
            open_declared(declared(), base_dir=tmp_path)
        path.write_text("bird,crow\n")
        with pytest.raises(ProbeError, match="its first line is"):
            open_declared(declared(), base_dir=tmp_path)


class TestShippedLists:
    @pytest.mark.parametrize("name", CLASS_LISTS)
    def test_counts_and_places_for_the_class(self, name):
        count = {"cifar10": 10, "cifar100": 100, "imagenet1k": 1000}[name]
        assert len(class_list(name, Path())) == count
        templates = template_list(name, Path())
        assert len(templates) == (80 if name == "imagenet1k" else 18)
        assert all("{c}" in template for template in templates)

    def test_they_are_what_open_clip_and_clip_benchmark_use(self):
        from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

        assert class_list("imagenet1k", Path()) == tuple(IMAGENET_CLASSNAMES)
        expected = tuple(template("{c}") for template in OPENAI_IMAGENET_TEMPLATES)
        assert template_list("imagenet1k", Path()) == expected

    def test_wordnet_ids_give_the_names(self, tmp_path):
        names = wordnet_names()
        assert len(names) == 1000
        assert names["n01440764"] == "tench"
        assert names["n15075141"] == "toilet paper"
        write_folder(tmp_path / "d", ("n01440764", "n01443537"))
        found = open_declared(declared(classes="imagenet1k-wnid"), base_dir=tmp_path)
        assert found.classnames == ("tench", "goldfish")
        write_folder(tmp_path / "e", ("n01440764", "owl"))
        with pytest.raises(ProbeError, match="class 'owl' is none of ImageNet-1k's"):
            open_declared(declared(source="folder:e", classes="imagenet1k-wnid"), base_dir=tmp_path)

    def test_a_file_or_a_shipped_name_of_the_right_length(self, tmp_path):
        write_folder(tmp_path / "d", COLOURS)
        (tmp_path / "names.txt").write_text("azure\nlime\nscarlet\n")
        (tmp_path / "prompts.txt").write_text("one {c}\n")
        found = open_declared(
            declared(classes="names.txt", templates="prompts.txt"), base_dir=tmp_path
        )
        assert found.classnames == ("azure", "lime", "scarlet")
        assert found.templates == ("one {c}",)
        with pytest.raises(ProbeError, match="3 classes, its list 10"):
            open_declared(declared(classes="cifar10"), base_dir=tmp_path)
        with pytest.raises(ProbeError, match=r"no classes 'cifar'[\s\S]*did you mean"):
            open_declared(declared(classes="cifar"), base_dir=tmp_path)


class TestImages:
    def test_a_bomb_of_two_and_a_half_billion_pixels(self):
        def chunk(kind: bytes, data: bytes) -> bytes:
            body = kind + data
            return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

        header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
        with pytest.raises(ProbeError, match=r"here: the image does not decode.*exceeds limit"):
            decode_image(bomb, "here")

    def broken(self, tmp_path: Path) -> Probe:
        root = write_folder(tmp_path / "d", COLOURS)
        (root / "test" / "red" / "03.png").write_bytes(png(303)[:40])
        (root / "test" / "blue" / "01.png").write_bytes(b"")
        return open_declared(declared(), base_dir=tmp_path)

    def test_unreadable_images_are_named_counted_and_left_out_up_to_a_limit(self, tmp_path):
        probe = self.broken(tmp_path)
        found = unreadable_images(probe)
        assert [probe.ids[position] for position, _ in found] == ["blue/01.png", "red/03.png"]
        with pytest.raises(ProbeError, match=r"2 of 36 images do not decode: .*blue/01\.png"):
            without(probe, found, most=1)
        left = without(probe, found, most=2)
        assert len(left) == 34
        assert "red/03.png" not in left.ids
        assert len(list(left.images())) == 34
        assert left.fingerprint != probe.fingerprint
        attacked = replace(probe, fingerprint="of images and an attack")
        assert without(attacked, found, most=2).fingerprint != left.fingerprint


def zip_entries(path: Path, entries: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_shards(root: Path, count: int = 3, each: int = 4) -> Path:
    for shard in range(count):
        entries = []
        for index in range(each):
            key = f"s{shard}-{index}"
            entries += [
                (f"{key}.png", png(10 * shard + index)),
                (f"{key}.cls", b"%d" % (index % 2)),
            ]
        zip_entries(root / "test" / f"{shard}.tar", entries)
    (root / "test" / "nshards.txt").write_text(str(count))
    (root / "classnames.txt").write_text("a\nb\n")
    (root / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    return root


class TestShards:
    @pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png"])
    def test_entries_that_would_escape(self, tmp_path, name):
        root = write_shards(tmp_path / "d")
        zip_entries(root / "test" / "0.tar", [(name, png(1))])
        with pytest.raises(ProbeError, match="would lie outside of the archive"):
            open_declared(declared(source="webdataset:d"), base_dir=tmp_path)

    def test_a_shard_of_zero_bytes(self, tmp_path):
        root = write_shards(tmp_path / "d")
        (root / "test" / "1.tar").write_bytes(b"")
        with pytest.raises(ProbeError, match=r"1\.tar .*truncated or damaged"):
            open_declared(declared(source="webdataset:d"), base_dir=tmp_path)

    def test_an_empty_class(self, tmp_path):
        root = write_shards(tmp_path / "d")
        (root / "classnames.txt").write_text("a\nb\nnever\n")
        with pytest.raises(ProbeError, match="'never'"):
            open_declared(
                declared(role="in-distribution", source="webdataset:d"), base_dir=tmp_path
            )

    def test_attributes_may_stand_in_a_table(self, tmp_path):
        root = write_shards(tmp_path / "d")
        with (root / "attributes.csv").open("w", newline="") as stream:
            rows = [(f"s{s}-{i}", "light" if i < 2 else "dark") for s in range(3) for i in range(4)]
            csv.writer(stream).writerows([("file", "tone"), *rows])
        probe = open_probe(
            name="p", role="shift", source="webdataset:d", split="test", base_dir=tmp_path,
            group="tone",
        )  # fmt: skip
        assert probe.groups == ("light", "light", "dark", "dark") * 3

    def test_captions_need_no_classes_to_be_retrieved(self, tmp_path):
        entries = [("a.png", png(1)), ("a.txt", b"one\ntwo\n"), ("b.png", png(2)), ("b.txt", b"x")]
        zip_entries(tmp_path / "d" / "test" / "0.tar", entries)
        (tmp_path / "d" / "test" / "nshards.txt").write_text("1")
        probe = open_declared(declared(role="retrieval", source="webdataset:d"), base_dir=tmp_path)
        assert probe.captions == ("one\ntwo", "x")
        assert probe.labels.tolist() == [-1, -1]


@pytest.fixture
def server(tmp_path):
    """A server on this machine that counts what is asked for."""
    write_shards(tmp_path / "served" / "birds")
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    handler = partial(Handler, directory=str(tmp_path / "served"))
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/birds", asked
    running.shutdown()
    running.server_close()
    thread.join()


class TestFetching:
    def test_nothing_is_downloaded_unasked(self, server, tmp_path):
        url, asked = server
        with pytest.raises(ProbeError, match=r"nothing is downloaded unasked\n.*probe fetch p"):
            open_declared(declared(source=f"webdataset:{url}"), base_dir=tmp_path)
        assert asked == []

    def test_shards_are_fetched_once_and_then_read(self, server, tmp_path):
        url, asked = server
        seen: list[tuple[int, int]] = []
        fetch_shards(url, "test", tmp_path, progress=lambda *done: seen.append(done))
        assert seen == [(1, 3), (2, 3), (3, 3)]
        probe = open_declared(declared(source=f"webdataset:{url}"), base_dir=tmp_path)
        local = open_declared(declared(source="webdataset:served/birds"), base_dir=tmp_path)
        assert probe.fingerprint == local.fingerprint
        asked.clear()
        (download_folder(url, tmp_path) / "test" / "1.tar").unlink()
        fetch_shards(url, "test", tmp_path)
        assert [path for path in asked if path.endswith(".tar")] == ["/birds/test/1.tar"]

    def test_what_is_not_there(self, server, tmp_path):
        url, _ = server
        with pytest.raises(ProbeError, match="cannot be fetched: HTTP Error 404"):
            fetch_shards(url, "train", tmp_path)
        with pytest.raises(ProbeError, match="cannot be fetched"):
            fetch_shards("http://127.0.0.1:1/none", "test", tmp_path)
        assert not list(download_folder(url, tmp_path).rglob("*.tar"))


class TestTorchvision:
    def cifar(self, root: Path, monkeypatch) -> None:
        folder = root / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        content = {
            "data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": [i % 10 for i in range(20)],
        }
        (folder / "test_batch").write_bytes(pickle.dumps(content))
        meta = {"label_names": list(class_list("cifar10", Path()))}
        (folder / "batches.meta").write_bytes(pickle.dumps(meta))
        sums = {
            file: md5((folder / file).read_bytes()).hexdigest()
            for file in ("test_batch", "batches.meta")
        }
        kind = torchvision.datasets.CIFAR10
        monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
        monkeypatch.setattr(kind, "train_list", [])
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums["batches.meta"]})

    def test_images_and_labels_are_torchvision_s(self, tmp_path, monkeypatch):
        self.cifar(tmp_path / "files", monkeypatch)
        probe = open_declared(declared(source="torchvision:CIFAR10@files"), base_dir=tmp_path)
        theirs = torchvision.datasets.CIFAR10(str(tmp_path / "files"), train=False)
        assert len(probe) == len(theirs) == 20
        for image, label, (other, target) in zip(probe.images(), probe.labels, theirs, strict=True):
            assert np.array_equal(np.asarray(image), np.asarray(other))
            assert label == target
        assert probe.classnames[1] == "automobile"
        assert len(probe.templates) == 18

    def test_absent_files_name_the_command(self, tmp_path):
        with pytest.raises(ProbeError, match=r"CIFAR100 is not whole[\s\S]*download=True"):
            open_declared(declared(source="torchvision:CIFAR100@none"), base_dir=tmp_path)

    @pytest.mark.parametrize(
        ("source", "split", "message"),
        [
            ("torchvision:CIFAR11@d", "test", "did you mean 'CIFAR10"),
            ("torchvision:CIFAR10", "test", "FOLDER"),
            ("torchvision:CIFAR10@d", "val", "splits 'train' and 'test'"),
        ],
    )
    def test_wrong_names(self, tmp_path, source, split, message):
        with pytest.raises(ProbeError, match=message):
            open_declared(declared(source=source, split=split), base_dir=tmp_path)


class TestHuggingFace:
    def table(self, **changes):
        datasets = pytest.importorskip("datasets")
        rows = {
            "image": [{"bytes": png(i), "path": None} for i in range(24)],
            "label": [i % 3 for i in range(24)],
            "tone": ["light" if i < 12 else "dark" for i in range(24)],
            "caption": [[f"image {i}", "another"] for i in range(24)],
        } | changes
        features = datasets.Features(
            image=datasets.Image(),
            label=datasets.ClassLabel(names=["tree_frog", "owl", "newt"]),
            tone=datasets.Value("string"),
            caption=datasets.Sequence(datasets.Value("string")),
        )
        return datasets, datasets.Dataset.from_dict(rows, features=features)

    @pytest.mark.parametrize("layout", ["disk", "dict", "parquet", "file"])
    def test_local_layouts(self, tmp_path, layout):
        datasets, table = self.table()
        source = "huggingface:d"
        if layout == "disk":
            table.save_to_disk(tmp_path / "d")
        elif layout == "dict":
            datasets.DatasetDict({"test": table}).save_to_disk(tmp_path / "d")
        else:
            (tmp_path / "d").mkdir()
            table.to_parquet(tmp_path / "d" / "test-00000.parquet")
            source += "/test-00000.parquet" if layout == "file" else ""
        probe = open_declared(declared(source=source, group="tone"), base_dir=tmp_path)
        assert probe.classnames == ("tree frog", "owl", "newt")
        assert probe.labels.tolist() == [i % 3 for i in range(24)]
        assert probe.groups[0] == "light"
        assert probe.captions is not None
        assert probe.captions[5] == "image 5\nanother"
        expected = decode_image(png(7), "x")
        found = list(probe.images())[7]
        assert np.array_equal(np.asarray(found), np.asarray(expected))

    def test_mistakes(self, tmp_path):
        datasets, table = self.table()
        datasets.DatasetDict({"test": table}).save_to_disk(tmp_path / "d")
        with pytest.raises(ProbeError, match="did you mean 'test'"):
            open_declared(declared(source="huggingface:d", split="tset"), base_dir=tmp_path)
        with pytest.raises(ProbeError, match=r"no column 'tones'[\s\S]*did you mean 'tone'"):
            open_declared(declared(source="huggingface:d", group="tones"), base_dir=tmp_path)
        datasets.DatasetDict({"test": table.remove_columns("image")}).save_to_disk(tmp_path / "e")
        with pytest.raises(ProbeError, match="no column of images among label"):
            open_declared(declared(source="huggingface:e"), base_dir=tmp_path)

    def test_pairs_to_train_on_need_captions_and_no_classes(self, tmp_path):
        datasets, table = self.table()
        pairs = table.remove_columns(["label", "tone"])
        (tmp_path / "d").mkdir()
        pairs.to_parquet(tmp_path / "d" / "train-00000-of-00001.parquet")
        wanted = replace(declared(source="huggingface:d", split="train"), role="proxy")
        probe = open_declared(wanted, base_dir=tmp_path)
        assert probe.captions is not None
        assert (probe.captions[5], set(probe.labels.tolist())) == ("image 5\nanother", {-1})
        texts = datasets.Dataset.from_dict(
            {"image": pairs["image"][:3], "text": ["a cat", None, "a dog"]}
        )
        texts.to_parquet(tmp_path / "d" / "train-00000-of-00001.parquet")
        with pytest.raises(ProbeError, match=r"row 1 of column 'text'.* has the caption None"):
            open_declared(wanted, base_dir=tmp_path)
        texts.remove_columns("text").to_parquet(tmp_path / "d" / "train-00000-of-00001.parquet")
        with pytest.raises(ProbeError, match="no captions, which its role 'proxy' is about"):
            open_declared(wanted, base_dir=tmp_path)

    def test_the_hub_is_not_asked_unasked(self, tmp_path):
        code = (
            "from pathlib import Path\n"
            "from clipq.data import open_probe\n"
            "from clipq.errors import ProbeError\n"
            "try:\n"
            "    open_probe(name='p', role='shift', source='huggingface:some/thing', split='test',"
            " base_dir=Path())\n"
            "except ProbeError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert "save_to_disk('thing')" in done.stdout, done.stderr
        assert "HF_DATASETS_OFFLINE=0" in done.stdout
