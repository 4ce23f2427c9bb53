"""Features that were made elsewhere come back to their samples, or are refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, UnknownNameError
from clipq.runtimes import TowerPorts, runtimes
from clipq.runtimes.class_rows import class_rows
from clipq.runtimes.feature_files import FeatureFiles

SAMPLES = {"id": ["a", "b/1", "c"], "digits": ["d", "e"]}
ID = np.array([[1, 0], [0, 2], [3, 3]], np.float32)
DIGITS = np.array([[5, 1], [1, 5]], np.float32)


def npz_folder(folder):
    np.savez(folder / "id.npz", ids=SAMPLES["id"][::-1], features=ID[::-1])
    np.savez(folder / "digits.npz", ids=SAMPLES["digits"], features=DIGITS)
    return folder


def npz_parts(folder):
    for probe, values in (("id", ID), ("digits", DIGITS)):
        (folder / probe).mkdir()
        for row, one in enumerate(SAMPLES[probe]):
            path = folder / probe / f"{9 - row}.npz"
            np.savez(path, ids=np.array([one.encode()]), features=values[[row]].astype(np.float64))
    (folder / "notes.txt").write_text("made on a phone")
    return folder


def npz_named(folder):
    path = folder / "all.npz"
    arrays = {"id.ids": SAMPLES["id"], "id.features": ID.astype(np.float16)}
    np.savez(path, **arrays, **{"digits.ids": SAMPLES["digits"], "digits.features": DIGITS})
    return path


def npz_bare(folder):
    path = folder / "all.npz"
    keys = ["e", "c", "digits/d", "id/a", "b/1"]
    np.savez(path, ids=keys, features=np.stack([DIGITS[1], ID[2], DIGITS[0], ID[0], ID[1]]))
    return path


def safetensors_texts(folder):
    path = folder / "all.safetensors"
    blob = np.frombuffer(json.dumps(SAMPLES["digits"]).encode(), np.uint8)
    tensors = {"id.features": ID, "digits.features": DIGITS, "digits.ids": blob}
    save_file(tensors, path, {"id.ids": json.dumps(SAMPLES["id"]), "made by": "[a phone]"})
    return path


def safetensors_bfloat16(folder):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    for probe, values in (("id", ID), ("digits", DIGITS)):
        tensor = torch.from_numpy(values).bfloat16()
        said = {"ids": json.dumps(SAMPLES[probe])}
        save_torch({"features": tensor}, folder / f"{probe}.safetensors", said)
    return folder


def parquet_column(folder):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = folder / "all.parquet"
    rows = [(p, one, v.tolist()) for p, values in (("digits", DIGITS), ("id", ID))
            for one, v in zip(SAMPLES[p], values, strict=True)]  # fmt: skip
    probes, ids, lists = zip(*rows, strict=True)
    columns = {"probe": pa.array(probes).dictionary_encode(), "id": ids, "note": ids,
               "embedding": pa.array(lists, pa.list_(pa.float32()))}  # fmt: skip
    pq.write_table(pa.table(columns), path)
    return path


def parquet_folder(folder):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for probe, values in (("id", ID), ("digits", DIGITS)):
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
        pq.write_table(pa.table({"id": SAMPLES[probe], "embedding": rows}),
                       folder / f"{probe}.parquet")  # fmt: skip
    return folder


@pytest.mark.parametrize(
    "write",
    [npz_folder, npz_parts, npz_named, npz_bare, safetensors_texts, safetensors_bfloat16,
     parquet_column, parquet_folder],
)  # fmt: skip
def test_rows_come_back_in_the_order_of_the_samples_whatever_the_file(write, tmp_path):
    files = FeatureFiles(write(tmp_path), SAMPLES)
    assert files.probes == ("digits", "id")
    for probe, expected in (("id", ID), ("digits", DIGITS)):
        found = files.rows(probe)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
    assert files.check() == ()
    assert runtimes.get("features").look(files.path).outputs[0].shape == (-1, 2)


def test_ids_that_were_saved_as_numbers_are_read_as_texts(tmp_path):
    np.savez(tmp_path / "id.npz", ids=np.array([12, 7]), features=ID[:2])
    assert np.array_equal(FeatureFiles(tmp_path, {"id": ["7", "12"]}).rows("id"), ID[1::-1])


def one_file(folder, ids, features, name="id.npz"):
    np.savez(folder / name, ids=ids, features=features)
    return folder


NAN = np.array([[1, 0], [np.nan, 2], [3, np.inf]], np.float32)


@pytest.mark.parametrize(
    ("ids", "features", "said"),
    [
        (["a", "c"], ID[:2], r"1 of 3 samples of probe 'id' are missing: 'b/1'"),
        (["a.png", "b", "c"], ID, r"2 of 3 samples .* missing: 'a', 'b/1'; .*'a.png', 'b' is for"),
        (["a", "b/1", "c", "a"], ID[[0, 1, 2, 0]], r"1 id is there more than once: 'a'"),
        (["a", "b/1", "c", "x"], ID[[0, 1, 2, 0]], r"1 id is not of probe 'id': 'x'"),
        (["a", "b/1", "c"], NAN, r"2 of 3 rows hold NaN or infinity, the first that of 'b/1'"),
        (["a", "b/1", "c"], ID.astype(np.float64) * 1e39, r"3 of 3 rows hold NaN or infinity"),
        (["a", "b/1", "c"], ID * [[1], [1], [0]], r"1 of 3 rows are all zeros, .* of 'c'"),
        (["a", "b/1", "c"], ID.astype(np.int8), r"features are int8 of shape \(3, 2\), not floats"),
        (["a", "b/1", "c"], ID[:, None], r"float32 of shape \(3, 1, 2\), not floats \(N, D\)"),
        (["a", "b/1", "c"], ID[:, :0], r"float32 of shape \(3, 0\), not floats \(N, D\)"),
        (["a", "b/1"], ID, r"2 ids and 3 rows of features"),
        ([["a"], ["b/1"], ["c"]], ID, r"ids are <U3 of shape \(3, 1\)"),
        (np.array([b"a", b"b/1", b"\xff"]), ID, r"ids are no UTF-8"),
        (np.array(["a", "b/1", None], object), ID, r"array 'ids' holds Python objects"),
    ],
)  # fmt: skip
def test_rows_that_are_not_one_vector_for_each_sample_are_refused(ids, features, said, tmp_path):
    with pytest.raises(ArtifactError, match=said) as caught:
        FeatureFiles(one_file(tmp_path, ids, features), SAMPLES).rows("id")
    assert "id.npz" in caught.value.problem
    assert caught.value.hint


def test_a_file_that_holds_something_else_says_what(tmp_path):
    np.savez(tmp_path / "x.npz", ID)
    with pytest.raises(ArtifactError, match=r"x.npz holds 'arr_0', and no arrays 'ids'"):
        FeatureFiles(tmp_path / "x.npz", SAMPLES)
    np.savez(tmp_path / "y.npz", features=ID, **{"id.ids": SAMPLES["id"]})
    with pytest.raises(ArtifactError, match=r"arrays with and without a probe"):
        FeatureFiles(tmp_path / "y.npz", SAMPLES)


def test_a_probe_without_features_is_told_from_one_that_nobody_knows(tmp_path):
    files = FeatureFiles(one_file(tmp_path, SAMPLES["id"], ID), SAMPLES)
    with pytest.raises(ArtifactError, match=r"no features of probe 'digits', only of 'id'"):
        files.rows("digits")
    with pytest.raises(UnknownNameError, match="'digitz'"):
        files.rows("digitz")
    with pytest.raises(ArtifactError, match=r"'classes', which is no probe"):
        FeatureFiles(one_file(tmp_path, ["cat"], ID[:1], "classes.npz"), SAMPLES)


def test_ids_that_two_probes_share_belong_to_neither(tmp_path):
    shared = SAMPLES | {"corruptions": ["a", "d"]}
    path = one_file(tmp_path, SAMPLES["id"], ID) / "id.npz"
    with pytest.raises(ArtifactError, match=r"1 ids .* several probes, the first 'a' of 'id', 'co"):
        FeatureFiles(path, shared)
    assert len(FeatureFiles(tmp_path, shared).rows("id")) == 3  # the file's name says it
    assert len(FeatureFiles(path, SAMPLES | {"corruptions": None}).rows("id")) == 3


def test_foreign_ids_are_named_but_for_those_of_a_probe_that_is_kept_unseen(tmp_path):
    ids = [*SAMPLES["id"], "secret"]
    path = one_file(tmp_path, ids, ID[[0, 1, 2, 0]]) / "id.npz"
    with pytest.raises(ArtifactError, match=r"1 id is not of any probe: 'secret'"):
        FeatureFiles(path, SAMPLES)
    assert len(FeatureFiles(path, SAMPLES | {"release": None}).rows("id")) == 3


def test_files_of_two_exports_are_told_by_their_dimensions(tmp_path):
    one_file(tmp_path, SAMPLES["id"], ID)
    one_file(tmp_path, SAMPLES["digits"], np.ones((2, 3), np.float32), "digits.npz")
    with pytest.raises(ArtifactError, match=r"3 dimensions in .*digits.npz and 2 in .*id.npz"):
        FeatureFiles(tmp_path, SAMPLES).check()


def test_features_of_a_probe_may_not_be_there_twice(tmp_path):
    npz_folder(tmp_path)
    (tmp_path / "id").mkdir()
    one_file(tmp_path / "id", SAMPLES["id"], ID, "0.npz")
    with pytest.raises(ArtifactError, match=r"'id' are there more than once"):
        FeatureFiles(tmp_path, SAMPLES)


def test_what_is_declared_normalised_is_and_what_is_not_declared_is_said(tmp_path):
    unit = (ID / np.linalg.norm(ID, axis=1, keepdims=True)).astype(np.float16)
    one_file(tmp_path, SAMPLES["id"], unit)
    files = FeatureFiles(tmp_path, SAMPLES, output="normalised")
    assert np.array_equal(files.rows("id"), unit)
    assert files.check() == ()
    (finding,) = FeatureFiles(tmp_path, SAMPLES).check()
    assert (finding.kind, finding.wrong) == ("normalised-output", False)
    one_file(tmp_path, SAMPLES["id"], ID)
    with pytest.raises(ArtifactError, match=r"2 of 3 rows .* that of 'b/1' has length 2"):
        FeatureFiles(tmp_path, SAMPLES, output="normalised").rows("id")


@pytest.mark.parametrize("name", ["id.npz", "id.safetensors", "id.parquet"])
def test_a_file_that_was_cut_short_is_named(name, tmp_path):
    if name == "id.parquet":
        parquet_folder(tmp_path)
    elif name == "id.safetensors":
        save_file({"features": ID}, tmp_path / name, {"ids": json.dumps(SAMPLES["id"])})
    else:
        one_file(tmp_path, SAMPLES["id"], ID)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-40])
    for look in (lambda: FeatureFiles(path, SAMPLES), lambda: runtimes.get("features").look(path)):
        with pytest.raises(ArtifactError, match=rf"{name} cannot be read as"):
            look()
    with pytest.raises(ArtifactError, match=r"none.npz is missing"):
        FeatureFiles(tmp_path / "none.npz", SAMPLES)
    with pytest.raises(ArtifactError, match=r"its name ends in '.pt'"):
        FeatureFiles(tmp_path / "none.pt", SAMPLES)


def test_parquet_rows_of_several_lengths_or_none_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "id.parquet"
    for lists, said in (
        ([[1.0, 2.0], [1.0], [2.0]], "rows have 1, 2 numbers"),
        ([[1.0, 2.0], None, [1.0, 2.0]], "1 of 3 rows are empty"),
        ([[1.0, 2.0], [None, 1.0], [1.0, 2.0]], "1 of them empty|2 numbers, 1 of them empty"),
    ):
        pq.write_table(pa.table({"id": SAMPLES["id"], "embedding": lists}), path)
        with pytest.raises(ArtifactError, match=said):
            FeatureFiles(path, SAMPLES)
    pq.write_table(pa.table({"name": SAMPLES["id"]}), path)
    with pytest.raises(ArtifactError, match=r"has the columns 'name'"):
        FeatureFiles(path, SAMPLES)


def test_class_embeddings_are_placed_by_the_names_of_the_classes(tmp_path):
    path = tmp_path / "classes.npz"
    np.savez(path, ids=["cat", "dog", "emu"], features=ID * 100)
    found = class_rows(path, ["emu", "cat", "dog", "emu"])
    assert found == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [1, 0], [0, 1],
                                            [0.5**0.5, 0.5**0.5]]))  # fmt: skip
    with pytest.raises(ArtifactError, match=r"1 of 4 classes .*missing: 'cow'; .*'dog' is foreign"):
        class_rows(path, ["emu", "cat", "cow", "emu"])
    with pytest.raises(ArtifactError, match=r"1 id is not of the zero-shot head: 'emu'"):
        class_rows(path, ["cat", "dog"])


TOKENS = np.array([[1, 5, 2, 0], [1, 6, 7, 2]])


def test_text_features_are_looked_up_by_tokens(tmp_path):
    path = tmp_path / "text.npz"
    np.savez(path, tokens=TOKENS[[1, 0, 1]].astype(np.int32), features=DIGITS[[1, 0, 1]])
    runtime, ports = runtimes.get("features"), TowerPorts("text")
    tower = runtime.open(path, ports, SessionSettings())
    assert np.array_equal(tower.run({"input": TOKENS[[0, 1, 0]]}), DIGITS[[0, 1, 0]])
    assert tower.facts.inputs[0].shape == (-1, 4)
    with pytest.raises(ArtifactError, match=r"1 of 2 texts are missing, .* \[1, 6, 7, 3 "):
        tower.run({"input": np.array([[1, 5, 2, 0], [1, 6, 7, 3]])})
    with pytest.raises(ArtifactError, match=r"texts of 4 tokens, .* shape \(2, 3\)"):
        tower.run({"input": TOKENS[:, :3]})
    with pytest.raises(ArtifactError, match=r"session.provider is set"):
        runtime.open(path, ports, SessionSettings(threads=2, provider="cuda"))
    with pytest.raises(ArtifactError, match=r"looked up by sample id"):
        runtime.open(path, TowerPorts("image"), SessionSettings())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"tokens": TOKENS[[0, 0]], "features": DIGITS}, "rows 0 and 1 have the same tokens"),
        ({"tokens": TOKENS * 1.0, "features": DIGITS}, "tokens are float64 of shape"),
        ({"tokens": TOKENS, "features": ID}, "2 rows of tokens and 3 of features"),
        ({"tokens": TOKENS, "features": DIGITS * np.nan}, "2 of 2 rows hold NaN"),
        ({"ids": SAMPLES["digits"], "features": DIGITS}, "looked up by tokens"),
    ],
)
def test_text_features_that_are_none_are_refused(arrays, said, tmp_path):
    np.savez(tmp_path / "text.npz", **arrays)
    with pytest.raises(ArtifactError) as caught:
        runtimes.get("features").open(tmp_path / "text.npz", TowerPorts("text"), SessionSettings())
    assert said in str(caught.value)
