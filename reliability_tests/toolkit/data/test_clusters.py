"""Samples that belong together: read from every source, part of what a probe is, and suggested."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipq.api.arguments import hold_out
from clipq.cli.main import main
from clipq.cluster_names import cluster_column, image_cluster
from clipq.data import (
    Images,
    Source,
    hashed_order,
    open_declared,
    open_probe,
    probe_from_images,
    probe_sources,
    taken,
)
from clipq.data.cluster_hints import shared_stems
from clipq.data.shipped_lists import class_list
from clipq.errors import ProbeError, SettingsError
from clipq.evaluation.cluster_facts import cluster_fact, cluster_remarks
from clipq.settings import CorruptionSettings, ProbeSettings, load_settings

COUNT = 24
PATIENTS = tuple(f"p{number // 2:02}" for number in range(COUNT))
NAMED = tuple(f"patient={patient}" for patient in PATIENTS)


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def file_of(number: int) -> str:
    return f"{'ab'[number // 12]}/{number:02}.png"


def attributes(root: Path, ids, patients=PATIENTS) -> None:
    lines = [f"{sample},{patient}" for sample, patient in zip(ids, patients, strict=True)]
    (root / "attributes.csv").write_text("\n".join(["file,patient", *lines]) + "\n")


def write_images(root: Path) -> None:
    for number in range(COUNT):
        path = root / "test" / file_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))


def write_shard(root: Path, **extra) -> None:
    (root / "test").mkdir(parents=True)
    (root / "test" / "nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("a\nb\n")
    (root / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    with tarfile.open(root / "test" / "0.tar", "w") as archive:
        for number, patient in enumerate(PATIENTS):
            members = {"png": png(number), "cls": str(number % 2).encode()}
            members |= {kind: make(patient) for kind, make in extra.items()}
            for kind, content in members.items():
                info = tarfile.TarInfo(f"{number:02}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def folder(root: Path) -> str:
    write_images(root)
    attributes(root, map(file_of, range(COUNT)))
    return "folder:d"


def image_list(root: Path) -> str:
    write_images(root)
    listed = [f"test/{file_of(number)}" for number in range(COUNT)]
    (root / "list.txt").write_text("".join(f"{name} {n % 2}\n" for n, name in enumerate(listed)))
    (root / "classnames.txt").write_text("a\nb\n")
    attributes(root, listed)
    return "imagelist:d"


def shards_with_json(root: Path) -> str:
    write_shard(root, json=lambda patient: json.dumps({"patient": patient}).encode())
    return "webdataset:d"


def shards_with_a_table(root: Path) -> str:
    write_shard(root)
    attributes(root, (f"{number:02}" for number in range(COUNT)))
    return "webdataset:d"


def parquet(root: Path) -> str:
    datasets = pytest.importorskip("datasets")
    rows = {
        "image": [{"bytes": png(number), "path": None} for number in range(COUNT)],
        "label": [number % 2 for number in range(COUNT)],
        "patient": list(PATIENTS),
    }
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["a", "b"]),
        patient=datasets.Value("string"),
    )
    root.mkdir(parents=True)
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(root / "test-0.parquet")
    return "huggingface:d"


SOURCES = (folder, image_list, shards_with_json, shards_with_a_table, parquet)


def opened(source: str, root: Path, role: str = "shift", **changes):
    split = "list.txt" if source.startswith("imagelist") else "test"
    declared = ProbeSettings("p", role, source, split)
    return open_declared(replace(declared, **changes), base_dir=root)


@pytest.mark.parametrize("write", SOURCES)
def test_a_column_of_any_source_names_clusters_and_is_part_of_what_the_probe_is(write, tmp_path):
    source = write(tmp_path / "d")
    plain = opened(source, tmp_path)
    found = opened(source, tmp_path, cluster="patient")
    assert found.clusters == NAMED
    assert plain.clusters is None
    assert (found.ids, found.groups) == (plain.ids, plain.groups)
    assert found.fingerprint != plain.fingerprint
    out = opened(source, tmp_path, role="ood", cluster="patient")
    assert out.clusters == NAMED
    with pytest.raises(ProbeError, match="surgeon"):
        opened(source, tmp_path, cluster="surgeon")


@pytest.mark.parametrize("column", ["group", "cluster"])
@pytest.mark.parametrize("write", SOURCES[:-1])  # Parquet has no class map
def test_samples_that_a_class_map_leaves_out_need_no_attribute(write, column, tmp_path):
    source = write(tmp_path / "d")
    (tmp_path / "d" / "classmap.csv").write_text("class,head_class\na,a\nb,\n")
    split = "list.txt" if source.startswith("imagelist") else "test"
    where = {"name": "p", "source": source, "split": split, "base_dir": tmp_path}
    plain = open_probe(role="shift", **where)
    assert len(plain) == 12
    table = tmp_path / "d" / "attributes.csv"
    if table.is_file():
        head, *rows = table.read_text().split("\n")
        kept = [row for row in rows if row.partition(",")[0] in plain.ids]
        table.write_text("\n".join([head, *kept]))
    else:
        write_shard(tmp_path / "e", json=lambda patient: json.dumps({"patient": patient}).encode())
        drop_attributes(tmp_path / "e" / "test" / "0.tar", tmp_path / "d" / "test" / "0.tar")
    found = open_probe(role="shift", **where, **{column: "patient"})
    numbers = [int(sample[-6:-4] if "." in sample else sample) for sample in plain.ids]
    patients = tuple(PATIENTS[number] for number in numbers)
    assert found.ids == plain.ids
    if column == "group":
        assert found.groups == patients
    else:
        assert found.clusters == tuple(f"patient={patient}" for patient in patients)


def drop_attributes(source: Path, target: Path) -> None:
    """Copy a shard without the attributes of samples of class 1."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            if member.name.endswith("json") and int(member.name[:2]) % 2:
                continue
            new.addfile(member, old.extractfile(member))


def test_another_cluster_of_one_sample_is_another_probe(tmp_path):
    source = folder(tmp_path / "d")
    before = opened(source, tmp_path, cluster="patient")
    attributes(tmp_path / "d", before.ids, ("p99", *PATIENTS[1:]))
    assert opened(source, tmp_path, cluster="patient").fingerprint != before.fingerprint
    assert opened(source, tmp_path).fingerprint == opened(source, tmp_path).fingerprint


def test_a_sample_without_a_cluster_is_named(tmp_path):
    source = folder(tmp_path / "d")
    attributes(tmp_path / "d", map(file_of, range(COUNT)), ("", *PATIENTS[1:]))
    with pytest.raises(ProbeError, match=r"1 of 24 samples have no 'patient'.*first 'a/00.png'"):
        opened(source, tmp_path, cluster="patient")


def test_cifar_has_clusters_by_a_table_beside_it(tmp_path, monkeypatch):
    import torchvision.datasets

    class Made:
        def __init__(self, root, train, download):
            self.data = np.arange(20 * 48, dtype=np.int64).astype(np.uint8).reshape(20, 4, 4, 3)
            self.targets = [number % 10 for number in range(20)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Made)
    ids = [f"test-{number:05}" for number in range(20)]
    attributes(tmp_path, ids, PATIENTS[:20])
    found = opened("torchvision:CIFAR10@.", tmp_path, cluster="patient")
    assert (found.ids, found.clusters) == (tuple(ids), NAMED[:20])
    assert found.classnames == class_list("cifar10", tmp_path)


def test_a_source_of_another_package_is_asked_for_the_column_as_a_group(monkeypatch):
    pixels = np.arange(COUNT * 48, dtype=np.int64).astype(np.uint8).reshape(COUNT, 4, 4, 3)

    def lake(location, *, name, role, split, base_dir, group):
        groups = {"patient": PATIENTS, "": (), "tone": ["t"] * COUNT}[group]
        images = Images(pixels, [0] * COUNT, ["a"], groups=groups)
        return probe_from_images(images, name=name, role=role)

    monkeypatch.setitem(probe_sources._objects, "lake", Source(lake))
    found = opened("lake:x", Path(), cluster="patient", group="tone")
    assert found.clusters == NAMED
    assert set(found.groups) == {"t"}


def test_versions_of_an_image_stay_in_its_cluster_and_a_part_keeps_its_own(tmp_path):
    source = folder(tmp_path / "d")
    noise = CorruptionSettings(("fog", "snow"), (1,))
    named = opened(source, tmp_path, "corruption", cluster="patient", corruption=noise)
    assert named.clusters == tuple(name for name in NAMED for _ in "ab")
    plain = opened(source, tmp_path, "corruption", corruption=noise)
    assert plain.clusters == tuple(file_of(number) for number in range(COUNT) for _ in "ab")
    assert cluster_column(plain.clusters) == ""
    few = opened(source, tmp_path, cluster="patient", samples=9)
    whole = opened(source, tmp_path, cluster="patient")
    chosen = sorted(hashed_order(whole)[:9])
    assert few.clusters == tuple(NAMED[at] for at in chosen)
    assert (
        few.fingerprint
        == taken(whole, chosen).fingerprint
        != opened(source, tmp_path, samples=9).fingerprint
    )


def test_no_image_is_mistaken_for_a_named_cluster():
    for sample in ("0001", "patient=p01", "=x", "a/b=c.png"):
        assert cluster_column([image_cluster(sample)]) == ""


def test_images_in_memory_have_clusters_one_each():
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    found = probe_from_images(Images(pixels, clusters=[1, 1, 2]), name="p", role="ood")
    assert found.clusters == ("cluster=1", "cluster=1", "cluster=2")
    with pytest.raises(ProbeError, match="3 samples and 2 clusters"):
        probe_from_images(Images(pixels, clusters=[1, 1]), name="p", role="ood")


def test_what_is_held_out_for_calibration_shares_no_cluster_with_the_rest():
    pixels = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    pixels[39] = pixels[0]  # a picture in two clusters: both go to one side
    patients = [number // 4 for number in range(40)]
    probe = probe_from_images(Images(pixels, clusters=patients), name="p", role="ood")
    kept, held = hold_out(probe)
    assert not set(kept.clusters) & set(held.clusters)
    assert not set(kept.sample_hashes) & set(held.sample_hashes)
    assert 8 <= len(held) <= 12
    assert len(kept) + len(held) == 40
    one = probe_from_images(Images(pixels, clusters=[0] * 40), name="p", role="ood")
    with pytest.raises(ProbeError, match="all 40 samples are one cluster"):
        hold_out(one)


def test_a_group_of_few_clusters_is_refused_however_many_samples_it_has(tmp_path):
    source = folder(tmp_path / "d")
    table = tmp_path / "d" / "attributes.csv"
    rows = [
        f"{file_of(number)},{patient},{'young' if number < 12 else 'old'}"
        for number, patient in enumerate(PATIENTS)
    ]
    table.write_text("\n".join(["file,patient,age", *rows]) + "\n")
    assert len(opened(source, tmp_path, "groups", group="age")) == COUNT
    with pytest.raises(
        ProbeError, match=r"12 members of group 'old' are of 6 'patient'\n.*10 clusters"
    ):
        opened(source, tmp_path, "groups", group="age", cluster="patient")


def test_pooled_probes_of_the_same_images_agree_on_clusters(project):
    def written(second: str) -> Path:
        path = project.settings()
        path.write_text(
            path.read_text()
            + '[[probes]]\nname = "a"\nrole = "shift"\nsource = "folder:d"\ncluster = "patient"\n'
            + f'[[probes]]\nname = "b"\nrole = "shift"\nsource = "folder:{second}"\n'
            + '[[probes]]\nname = "both"\nrole = "pooled"\nprobes = ["a", "b"]\n'
        )
        return path

    assert load_settings(written("elsewhere")).probe("a").cluster == "patient"
    with pytest.raises(SettingsError, match=r"pools 'a' with cluster = 'patient' and 'b' with"):
        load_settings(written("d"))


# -- suggested by ids ------------------------------------------------------------------------------


def by_class(count: int, classes: int = 4) -> np.ndarray:
    return np.arange(count) * classes // count


def numbers(form: str, *ranges: range) -> list[str]:
    if len(ranges) == 1:
        return [form.format(one) for one in ranges[0]]
    return [form.format(one, other) for one in ranges[0] for other in ranges[1]]


@pytest.mark.parametrize(
    ("ids", "stems"),
    [
        (numbers("p{:03}_frame{:02}.png", range(20), range(4)), 20),
        ([f"{code:x}_{s}.png" for code in range(0x1F600, 0x1F628) for s in ("noto", "tw")], 40),
        (numbers("cat/{:03}-{}.jpg", range(30), range(3)), 30),
        (numbers("video{:03}/frame_{:04}.png", range(20), range(5)), 20),
        (numbers("scan{}{}", range(100, 140), "abc"), 40),
        # A track of a traffic sign: numbers begin again in each class.
        ([f"{c:05}/{t:05}_{f:05}.ppm" for c in range(4) for t in range(6) for f in range(5)], 24),
    ],
)
def test_stems_that_samples_share_are_found(ids, stems):
    found = shared_stems(ids, by_class(len(ids)))
    assert found is not None
    assert (found.stems, found.samples) == (stems, len(ids))
    first, second = found.example
    assert first != second
    assert {first, second} <= set(ids)


TWENTY, FORTY = range(20), range(40)
WORDS = [first + second for first in "abcdef" for second in "ghijkl"]


@pytest.mark.parametrize(
    ("ids", "sure"),
    [
        # Pictures of one word in two styles; a few numbered ones of each of many words.
        ([f"{w[0]}/heart{w}_{s}.png" for w in WORDS for s in ("noto", "twemoji")], True),
        ([f"{w}_{n}.png" for w in WORDS for n in range(5)], False),
        # Copies, beside what they were copied from or not.
        ([f"img{n}{copy}.png" for n in FORTY for copy in ("", " (1)", " (2)")], False),
        (numbers("img{} ({}).png", FORTY, range(3)), False),
        # A frame's number that repeats the video's.
        ([f"vid{v:03}_{v:03}{n:03}.png" for v in FORTY for n in range(5)], True),
        # Folders and stems that say what they are.
        (numbers("patient{}/{:03}.png", TWENTY, range(6)), True),
        (numbers("patients/{}/{:03}.png", TWENTY, range(6)), True),
        (numbers("subject{:02}_{:02}.png", TWENTY, range(6)), True),
        # Those that do not are classes for all that is known, where there are no labels.
        (numbers("{:04}/{}.png", FORTY, range(5)), False),
        (numbers("c{:03}_{:03}.png", TWENTY, range(10)), False),
        (numbers("{:03}_{:03}.png", TWENTY, range(10)), False),
        (numbers("s{:02}_c{}.png", TWENTY, range(10)), False),
    ],
)
def test_names_with_classes_across_them_and_without_labels(ids, sure):
    across = np.random.default_rng(0).integers(0, 4, len(ids))
    assert shared_stems(ids, across) is not None
    assert (shared_stems(ids, np.full(len(ids), -1)) is not None) is sure


def test_a_grid_whose_columns_are_the_classes_suggests_nothing_unless_it_says_so():
    labels = np.arange(200) % 10
    assert shared_stems(numbers("s{:02}_c{}.png", TWENTY, range(10)), labels) is None
    assert shared_stems(numbers("a{:02}_{}.png", TWENTY, range(10)), labels) is None
    assert shared_stems(numbers("subject{:02}_{}.png", TWENTY, range(10)), labels) is not None


@pytest.mark.parametrize(
    "ids",
    [
        numbers("batch{:02}_{:03}.png", range(12), TWENTY),
        numbers("part-{:05}-{:03}.png", TWENTY, TWENTY),
        numbers("fold{}/cls{}.png", TWENTY, range(6)),
        [f"{breed}_{n}.jpg" for breed in WORDS for n in range(60)],
        [f"n{k:08}/{style}_{n}.jpg" for k in TWENTY for style in ("art", "toy") for n in TWENTY],
        numbers("rose ({}).jpg", range(200)),
        numbers("img_{:04}.png", range(200)),
        numbers("{:012}.jpg", range(200)),
        numbers("{}.png", range(200)),
        numbers("ILSVRC2012_val_{:08}.JPEG", range(200)),
        numbers("test-{:07}", range(200)),
        numbers("batch_{}_{:04}.png", range(5), range(40)),
        numbers("n0144{:04}_{}.JPEG", range(20), range(10)),
        numbers("n0144{:04}/{}.JPEG", range(20), range(10)),
        [f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(100)],
        [f"s{n % 40}_{n}.png" for n in range(200)],  # serial: no ending recurs
        [f"{name}_{n:03}.png" for name in "abcdefghijkl" for n in range(20)],
        [f"{age}_{n % 2}_{n % 5}_{20170109142400 + n}.jpg" for n, age in enumerate([31] * 200)],
        numbers("{:08x}-1b2a-4f4b-9c3e-aabbccddeeff.png", range(200)),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_numbers_classes_and_batches_suggest_nothing(ids, labelled):
    labels = np.full(len(ids), -1) if not labelled else by_class(len(ids), 20)
    assert shared_stems(ids, labels) is None


def test_the_class_as_a_stem_suggests_nothing():
    ids = numbers("class{:02}_{:02}.png", range(20), range(10))
    assert shared_stems(ids, np.repeat(np.arange(20), 10)) is None


@pytest.mark.parametrize(
    "source",
    ["shapes", "digits", "four-groups", "captions"],
)
def test_the_embedded_probes_suggest_nothing(source):
    data = Path(__file__).parents[3] / "fixtures" / "data"
    declared = ProbeSettings(
        "p", "ood" if source != "captions" else "retrieval", f"webdataset:{data}/{source}"
    )
    probe = open_declared(declared, base_dir=Path())
    assert list(cluster_remarks(probe)) == []
    assert cluster_fact(probe) == ""


def made(ids, *, name="p", clusters=()):
    pixels = np.zeros((len(ids), 2, 2, 3), np.uint8)
    images = Images(pixels, ids=ids, clusters=clusters)
    return probe_from_images(images, name=name, role="ood")


def test_probe_check_says_how_many_clusters_there_are(project, capsys, monkeypatch):
    settings = project.settings()
    text = settings.read_text().replace('group = "colour"', 'cluster = "colour"', 1)
    settings.write_text(text)
    monkeypatch.chdir(project.root)
    assert main(["probe", "check", "id", "--quiet", "--sheets", "sheets"]) == 0
    shown = capsys.readouterr().out
    assert "of 'colour'," in shown
    assert "clusters of samples" in shown
    assert "are too few for a verdict, which takes 25" in shown


def test_remarks_suggest_clusters_count_few_and_find_those_of_the_calibration_split():
    ids = numbers("p{:03}_f{:02}.png", range(30), range(2))
    (suggested,) = cluster_remarks(made(ids))
    assert "60 of 60 samples share the stem" in suggested
    assert "'p000_f00.png' and 'p000_f01.png'" in suggested
    patients = [name[:4] for name in ids]
    known = made(ids, clusters=patients)
    assert list(cluster_remarks(known)) == []
    assert cluster_fact(known).startswith("30 of 'cluster', 2 to 2 samples each, worth 30 of")
    (few,) = cluster_remarks(made(ids[:20], clusters=patients[:20]))
    assert few.startswith("10 clusters of samples are too few for a verdict, which takes 25")
    (uneven,) = cluster_remarks(made(ids, clusters=["p0"] * 30 + ids[30:]))
    assert "31 clusters of samples (worth 3.87 of equal size) are too few" in uneven
    split = made(["x", "y"], name="cal", clusters=["p029", "q"])
    (both,) = cluster_remarks(known, split)
    assert both.startswith("1 of its 30 clusters are in the calibration split as well")
    assert "cluster=p029" in both
