"""Names and classes: numbers count as numbers, and a list in another order is refused."""

from __future__ import annotations

import io
import json
import random
import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from torchvision.models._meta import _IMAGENET_CATEGORIES

from clipq.data import Probe, head_columns, look_at_probe, open_declared, open_probe
from clipq.data.class_order import in_order, names_by_place
from clipq.data.shipped_lists import class_list, wordnet_names
from clipq.errors import ProbeError
from clipq.settings import ProbeSettings

REPOSITORY = Path(__file__).parents[3]
IMAGENET = class_list("imagenet1k", Path())
WNIDS = tuple(wordnet_names())


def image(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (1, 1), (number % 256, number // 256, 0)).save(stream, "PPM")
    return stream.getvalue()


def tree(folder: Path, classes: list[str], files: Callable[[int], list[str]]) -> Path:
    """Write a folder of images per class, in any order; each image is another one."""
    for number in random.Random(0).sample(range(len(classes)), len(classes)):
        (folder / classes[number]).mkdir(parents=True)
        for count, file in enumerate(files(number)):
            (folder / classes[number] / file).write_bytes(image(number + 1000 * count))
    return folder


def numbered(tmp_path: Path, names: list[str], **changes: str) -> Probe:
    tree(tmp_path / "d", names, lambda _: ["a.png"])
    settings = {"name": "d", "role": "shift", "source": "folder:d", "split": "."} | changes
    return open_declared(ProbeSettings(**settings), base_dir=tmp_path)


def test_folders_called_by_numbers_count_as_numbers(tmp_path):
    names = [str(number) for number in range(12)]
    found = numbered(tmp_path, names)
    assert found.classnames == tuple(names)
    assert found.ids == tuple(f"{number}/a.png" for number in range(12))
    assert found.labels.tolist() == list(range(12))


def test_one_folder_that_is_no_number_sorts_all_of_them_as_torchvision_does(tmp_path):
    found = numbered(tmp_path, ["10", "9", "1e1", "n2"])
    theirs = torchvision.datasets.ImageFolder(str(tmp_path / "d"), is_valid_file=lambda _: True)
    assert list(found.classnames) == theirs.classes


def test_numbers_say_their_places_in_whatever_order_a_source_has_them():
    """A Hugging Face data set of numbered folders has its names sorted as text."""
    own = sorted(str(number) for number in range(1000))
    named = names_by_place(own, IMAGENET, probe="p", listed="l", shipped=True)
    assert own[2] == "10"
    assert all(name == IMAGENET[int(number)] for name, number in zip(named, own, strict=True))


REFUSED = [
    # what classes are called, a list, whether it is shipped, what is said
    ([str(n) for n in range(1, 1001)], IMAGENET, True, "1 to 1000, which are not the places 0 to"),
    ([str(n) for n in (*range(999), 1000)], IMAGENET, True, "0 to 1000, which are not"),
    ([str(n) for n in range(200)], IMAGENET, True, "200 classes, its list 1000"),
    (["1", "10", "2"], ("a", "b", "c"), False, "1 to 10, which are not the places 0 to 2"),
    (["cat", "dog"], ("dog", "cat"), False, "'cat' would be called 'dog'.* in line 2"),
    (["fire truck", "ox"], ("ox", "Fire_truck"), False, "'fire truck' would be called 'ox'"),
    ([f"class {n}" for n in sorted(map(str, range(11)))], tuple("abcdefghijk"), False,
     "'class 10' is number 2 as text sorts"),
    (["class 10", "class 1_a", "class_2"], ("a", "b", "c"), False, "class 10' is number 0"),
    ([*map(str, range(12))], sorted(f"level {n}" for n in range(12)), False,
     "'2' would be called 'level 10', for the list is sorted as text"),
    (["3", "7", "11"], ("level 11", "level 3", "level 7"), False, "'3' would be called 'level 11'"),
    (list(WNIDS[1::-1]), IMAGENET[:2], True, "'n01443537' would be called 'tench'"),
    ([*WNIDS[:5], WNIDS[6], WNIDS[5], *WNIDS[7:]], IMAGENET, True, "called 'electric ray'"),
    (list(WNIDS[:200]), IMAGENET, True, "imagenet1k-wnid"),
]  # fmt: skip


@pytest.mark.parametrize(("own", "listed", "shipped", "message"), REFUSED)
def test_a_list_that_does_not_fit_is_refused(own, listed, shipped, message):
    with pytest.raises(ProbeError) as caught:
        names_by_place(own, listed, probe="p", listed="the list", shipped=shipped)
    assert re.search(message, str(caught.value))


FITTING = [
    ([str(n) for n in range(1, 4)], ("a", "b", "c")),  # of a list that was made for them
    (["x", "y"], ("dog", "cat")),
    (["class 1", "class 2"], ("dog", "cat")),
    (["class 2", "class 10", "class 1"], ("dog", "cat", "ox")),  # an order that somebody chose
    (["DC 10", "DC 3"], ("DC-10", "DC-3")),
    (["n01440764", "n01443537"], ("a tench", "a goldfish")),
    (["crane", "crane"], ("crane", "crane")),
    (["707-320", "DC-10", "DC-3"], ("Boeing 707-320", "Douglas DC-10", "DC-3 propliner")),
    (["10_ox", "1_cat", "2_dog"], ("ox", "cat", "dog")),
    (["class_1", "class_10", "class_2"], ("level 1", "level 10", "level 2")),
    (["0", "1", "2", "3"], ("DC-10", "DC-3", "MD-11", "MD-80")),  # numbers that count nothing
    (["0", "1", "2"], ("3 stars", "2 stars", "1 star")),
    (["cat", "dog"], ("Cat", "DOG")),
]


@pytest.mark.parametrize(("own", "listed"), FITTING)
def test_a_list_that_fits_gives_its_names(own, listed):
    assert names_by_place(own, listed, probe="p", listed="the list") == listed


DOUBTFUL = [
    [*map(str, range(11)), "unknown"],
    ["-1", "0", "1", "2", "10"],
    ["-1", "-2", "-3"],
    ["temp_-0.5C", "temp_-0.75C"],
    ["0.5", "1.5", "2.5", "10.5"],
    ["0.25", "0.5"],  # as a version, the other way round
    ["1e-3", "1e-2"],
    ["1,000", "900"],
    ["1_cat", "2_dog", "10_ox"],
    [f"lvl{n}x" for n in range(1, 13)],
    ["Level 10", "level 2"],
    ["0-2", "4-6", "8-12", "15-20"],
    ["\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT ZERO}", "\N{FULLWIDTH DIGIT TWO}"],
    ["01", "1", "2"],
    ["9", "a", "10"],
]


@pytest.mark.parametrize("folders", DOUBTFUL, ids=lambda folders: folders[-1])
@pytest.mark.parametrize("beside", [True, False])
def test_folders_that_text_and_numbers_sort_apart_take_no_list(tmp_path, folders, beside):
    names = "\n".join(f"{'abcdefghijklmn'[at]} name" for at in range(len(folders)))
    file = tmp_path / ("d/classnames.txt" if beside else "names.txt")
    file.parent.mkdir(exist_ok=True)
    file.write_text(names)
    changes = {} if beside else {"classes": "names.txt"}
    with pytest.raises(ProbeError, match=r"as text sorts, and .* may count otherwise|are not the"):
        numbered(tmp_path, folders, **changes)
    if beside:  # out of distribution nothing hangs on which name is whose
        assert set(numbered(tmp_path / "o", folders, role="ood").labels) == {-1}


UNDOUBTED = [
    [f"{n:05}_Genus species {n % 7}" for n in range(90, 120)],
    [f"{n:03}.thing-{n}" for n in range(1, 13)],
    [f"{n:02x}" for n in range(0x2E, 0x51)],  # as NIST calls its letters
    [f"U+{n:04X}" for n in range(0x4E09, 0x4E21)],
    ["9000000000", "10000000000"],
    ["Faces", "Leopards", "accordion", "BACKGROUND_Google"],
    ["Audi 100 Sedan 1994", "Audi RS 4 2008", "BMW 3 Series", "BMW X6", "Ford F-150", "Ford F-450"],
    ["cls-1", "cls-2", "cls-9"],
    ["grade_1", "grade_2", "ungraded"],
    list(WNIDS[:12]),
]


@pytest.mark.parametrize("folders", UNDOUBTED, ids=lambda folders: folders[0])
def test_folders_that_both_sort_alike_take_a_list(folders):
    names = tuple(f"{at} name" for at in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    names = names[: len(folders)]
    for classes in (in_order(folders), [one.replace("_", " ") for one in in_order(folders)]):
        assert names_by_place(classes, names, probe="p", listed="l") == names


def test_older_names_of_the_same_classes_are_replaced():
    """torchvision's "Cardigan" is a dog, which the newer list calls otherwise, and no garment."""
    older = _IMAGENET_CATEGORIES
    assert older[264].casefold() == IMAGENET[474]
    assert names_by_place(older, IMAGENET, probe="p", listed="l", shipped=True) == IMAGENET


def test_a_file_of_names_beside_the_data_is_held_against_the_folders(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "classnames.txt").write_text("dog\ncat\n")
    with pytest.raises(ProbeError, match=r"'cat' would be called 'dog', but .*classnames\.txt"):
        numbered(tmp_path, ["cat", "dog"])


def test_a_file_of_names_for_numbers_is_in_their_order(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "classnames.txt").write_text("three\nseven\neleven\n")
    assert numbered(tmp_path, ["11", "3", "7"]).classnames == ("three", "seven", "eleven")


def test_in_order_is_a_permutation_whatever_it_is_given():
    for names in ([], ["01", "1", "001"], ["-1", "2"], ["٣", "2"], ["1" * 12, "2"]):
        assert sorted(in_order(names)) == sorted(names)
    assert in_order(["01", "1", "001", "0"]) == ["0", "001", "01", "1"]


class TestRecipes:
    """Each recipe of docs/probes.md, on a folder tree of exactly the data set's shape."""

    @pytest.fixture(scope="class")
    def recipes(self) -> dict[str, dict[str, str]]:
        page = (REPOSITORY / "docs" / "probes.md").read_text(encoding="utf-8")
        section = page.partition("## ImageNet and its relatives")[2].partition("\n## ")[0]
        found = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
        return {probe["name"]: probe for probe in tomllib.loads(found[1])["probes"]}

    def opened(self, recipes: dict[str, dict[str, str]], name: str, data: Path) -> Probe:
        table = dict(recipes[name])
        table["source"] = table["source"].replace("/data/", f"{data}/")
        return open_declared(ProbeSettings(**table), base_dir=data)

    def right(self, probe: Probe) -> list[tuple[str, tuple[int, ...]]]:
        """Return the folder of each sample, and the columns of ImageNet's head that are right."""
        columns = head_columns(probe.name, probe.classnames, probe.class_map, IMAGENET)
        own = columns or [(place,) for place in range(1000)]
        folders = (sample.partition("/")[0] for sample in probe.ids)
        return [(a, own[label]) for a, label in zip(folders, probe.labels, strict=True)]

    def test_the_recipes_are_these(self, recipes):
        assert set(recipes) == {"imagenet", "imagenet-v2", "imagenet-r", "imagenet-a",
                                "imagenet-sketch", "objectnet", "cifar10"}  # fmt: skip

    def test_imagenet_v2(self, recipes, tmp_path):
        folder = tmp_path / "imagenetv2-matched-frequency-format-val"
        tree(folder, [str(n) for n in range(1000)], lambda n: [f"{n:040x}.jpeg"])
        probe = self.opened(recipes, "imagenet-v2", tmp_path)
        assert probe.classnames == IMAGENET
        assert all(right == (int(place),) for place, right in self.right(probe))

    @pytest.mark.parametrize("name", ["imagenet", "imagenet-sketch"])
    def test_a_folder_for_each_wordnet_id(self, recipes, tmp_path, name):
        if name == "imagenet":
            folder, file = tmp_path / "imagenet" / "val", "ILSVRC2012_val_{:08}.JPEG"
        else:
            folder, file = tmp_path / "sketch", "sketch_{}.JPEG"
        tree(folder, list(WNIDS), lambda n: [file.format(n)])
        probe = self.opened(recipes, name, tmp_path)
        assert probe.classnames == IMAGENET
        assert all(WNIDS[place] == wnid for wnid, (place,) in self.right(probe))

    @pytest.mark.parametrize("letter", ["a", "r"])
    def test_200_wordnet_ids(self, recipes, tmp_path, letter):
        text = resources.files("timm.data._info") / f"imagenet_{letter}_synsets.txt"
        wnids = text.read_text().split()
        folder = tmp_path / f"imagenet-{letter}"
        tree(folder, wnids, lambda n: [f"0.00{n}_x _ y_0.8.jpg", f"art_{n}.jpg"])
        (folder / "README.txt").write_text("not a class")
        probe = self.opened(recipes, f"imagenet-{letter}", tmp_path)
        assert len(wnids) == len(probe.classnames) == 200
        assert len(probe) == 400
        named = [{place for place in range(1000) if IMAGENET[place] == name} for name in IMAGENET]
        for wnid, right in self.right(probe):  # a name that ImageNet has twice stands for both
            assert {*right} <= named[WNIDS.index(wnid)]

    def test_objectnet(self, recipes, tmp_path):
        root = tmp_path / "objectnet-1.0"
        folders = self.objectnet(root)
        probe = self.opened(recipes, "objectnet", tmp_path)
        right = dict(self.right(probe))
        assert len(probe.classnames) == len(right) == 113
        assert len(probe) == 226
        assert {folder: {*places} for folder, places in right.items()} == folders

    def objectnet(self, root: Path) -> dict[str, set[int]]:
        """Write a tree of 313 folders and the four mappings; return what stands for which."""
        classes = [f"thing_{n}_of_a-kind" for n in range(313)]
        tree(root / "images", classes, lambda n: [f"{n:032x}.png", f"{n + 1:032x}.png"])
        shuffled = random.Random(1).sample(range(1000), 1000)  # ids of 2012 are in another order
        labels = [f"synset {n}, {IMAGENET[n]}" for n in range(1000)]
        mapped = random.Random(2).sample(range(313), 113)
        heads = random.Random(3).sample([n for n in range(1000) if IMAGENET.count(IMAGENET[n]) < 2],
                                        130)  # fmt: skip
        several = {n: {heads[i]} for i, n in enumerate(mapped)}
        for extra in range(113, 130):  # one class, several of ImageNet's
            several[mapped[extra % 10]].add(heads[extra])
        pair = {n for n in range(1000) if IMAGENET[n] == "sunglasses"}
        several[mapped[0]] = pair  # two of ImageNet's with one name
        mappings = root / "mappings"
        mappings.mkdir()
        files = {
            "folder_to_objectnet_label.json": {c: f"Thing {n}" for n, c in enumerate(classes)},
            "objectnet_to_imagenet_1k.json": {
                f"Thing {n}": "; ".join(labels[i] for i in sorted(own))
                for n, own in several.items()
            },
            "pytorch_to_imagenet_2012_id.json": {str(n): shuffled[n] for n in range(1000)},
        }
        for file, content in files.items():
            (mappings / file).write_text(json.dumps(content))
        by_id = np.argsort(shuffled)
        text = "".join(f"{labels[n]}\n" for n in by_id)
        (mappings / "imagenet_to_label_2012_v2").write_text(text)
        return {classes[n]: own for n, own in several.items()}

    def test_what_objectnet_leaves_out_is_counted_and_what_it_lacks_is_named(self, tmp_path):
        root = tmp_path / "objectnet-1.0"
        self.objectnet(root)
        where = {"name": "o", "source": "folder:objectnet-1.0", "split": "images",
                 "base_dir": tmp_path}  # fmt: skip
        assert look_at_probe(role="shift", **where) == {
            "classes": 113,
            "images": 226,
            "classes left out, for which the head has none": 200,
        }
        assert len(open_probe(role="ood", **where)) == 626  # no class of it is anybody's
        (root / "images" / "yeti").mkdir()
        with pytest.raises(ProbeError, match="mappings: no line for class 'yeti'"):
            open_probe(role="shift", **where)
        (root / "mappings" / "imagenet_to_label_2012_v2").write_text("kit fox\n")
        with pytest.raises(ProbeError, match="is not one of ImageNet's classes"):
            open_probe(role="shift", **where)


class TestLeftOut:
    def test_a_line_with_nothing_behind_the_comma_leaves_a_class_out(self, tmp_path):
        tree(tmp_path / "d", ["cat", "dog", "yeti"], lambda _: ["a.png"])
        text = "class,head_class\ncat,tabby\ncat,lynx\nyeti,\ndog,dog\n"
        (tmp_path / "d" / "classmap.csv").write_text(text)
        settings = ProbeSettings("d", "shift", "folder:d", split=".")
        found = open_declared(settings, base_dir=tmp_path)
        assert found.classnames == ("cat", "dog")
        assert found.ids == ("cat/a.png", "dog/a.png")
        assert found.labels.tolist() == [0, 1]
        assert found.class_map == (("tabby", "lynx"), ("dog",))

    def test_to_leave_all_out_is_refused(self, tmp_path):
        tree(tmp_path / "d", ["yeti"], lambda _: ["a.png"])
        (tmp_path / "d" / "classmap.csv").write_text("class,head_class\nyeti,\n")
        with pytest.raises(ProbeError, match="leaves all classes out"):
            open_declared(ProbeSettings("d", "shift", "folder:d", split="."), base_dir=tmp_path)

    def test_names_that_the_head_has_twice_may_come_in_another_order(self):
        head = ("missile", "ox", "missile")
        assert head_columns("p", ("missile", "missile", "ox"), None, head) == ((0,), (2,), (1,))
        assert head_columns("p", ("ox", "missile"), None, head) == ((1,), (0, 2))
        with pytest.raises(ProbeError, match="two classes stand for 'ox'"):
            head_columns("p", ("ox", "ox", "missile"), None, head)
