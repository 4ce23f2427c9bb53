"""Every kind of file and text that clipq reads, as a thing to damage and a reader to call on it.

Each entry of `FORMATS` takes a folder of its own and a `random.Random`, puts damaged input there
and returns what reads it. Sources are this repository's own files: all but the damage is real.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hostile_places import PLACES, put
from mutations import STRANGE, damaged_bytes, damaged_json, damaged_text, damaged_toml

from clipq.records import RunRecord, read_run, run_id

__all__ = ["FORMATS", "NothingMeasuredError"]

ROOT = Path(__file__).resolve().parents[1]
Read = Callable[[], object]
Damage = Callable[[bytes, Random], bytes]


class NothingMeasuredError(Exception):
    """A run passed, or a command ended well, though nothing was measured."""


def _place(path: Path, content: bytes, damage: Damage, random: Random) -> None:
    """Write a damaged file, or put something else in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if random.random() < 0.05:
        put(path, random.choice(PLACES))
    else:
        path.write_bytes(damage(content, random))


# -- settings and what they name ----------------------------------------------------------------


def _settings(folder: Path, random: Random) -> Read:
    from clipq.evaluation.plan import plan
    from clipq.settings import load_settings

    _place(folder / "clipq.toml", (ROOT / "clipq.toml").read_bytes(), damaged_toml, random)

    def read() -> object:
        settings = load_settings(folder / "clipq.toml")
        if settings.plugins:
            return None  # importing a module is no reading of a file
        return _some(plan(settings))

    return read


@cache
def _planned() -> Any:
    from clipq.evaluation.plan import plan
    from clipq.settings import load_settings

    return plan(load_settings(ROOT / "clipq.toml"))


def _margins(folder: Path, random: Random) -> Read:
    from clipq.gating.margins import load_margins

    path = folder / "margins.toml"
    _place(path, (ROOT / "baselines" / "margins.toml").read_bytes(), damaged_toml, random)

    def read() -> object:
        margins = load_margins(path)
        margins.check_against(_planned())
        return [(margins.margin(one), margins.expected_failure(one)) for one in _planned()[::200]]

    return read


_WAIVERS = b"""\
[[waive]]
cases = ["vit-clean/rtn:w4/id.top1", "vit-clean/rtn:w4a4/*"]
owner = "ada@example.org"
reason = "accepted for the pilot, see the minutes of 3 May"
expires = 2026-12-31
"""


def _waivers(folder: Path, random: Random) -> Read:
    import datetime

    from clipq.gating.waivers import load_waivers

    _place(folder / "waivers.toml", _WAIVERS, random.choice((damaged_bytes, damaged_toml)), random)

    def read() -> object:
        waivers, today = load_waivers(folder / "waivers.toml"), datetime.date(2026, 11, 26)
        cases = [waivers.apply(case, today=today) for case in _record().cases]
        ids = [case.id for case in cases]
        return waivers.problems(cases, today=today, matrix=ids), waivers.to_plain(cases)

    return read


def _latencies(folder: Path, random: Random) -> Read:
    from clipq.gating.latency import load_latencies

    content = b'device = "A10"\n[milliseconds]\n"vit/fp32" = 3.5\n"vit/rtn:w8" = 2.25\n'
    damage = random.choice((damaged_toml, damaged_bytes))
    _place(folder / "latency.toml", content, damage, random)
    pairs = ("vit/fp32", "vit/rtn:w8")
    return lambda: load_latencies(folder / "latency.toml", pairs).evidence(pairs[1])


def _format_table(folder: Path, random: Random) -> Read:
    from clipq.quant.selection import read_table

    content = b'"visual.*.mlp.*" = "w8a8"\n"*.attn.*" = "w4g32"\n"text.*" = "float"\n'
    _place(folder / "table.toml", content, damaged_toml, random)
    return lambda: read_table(str(folder / "table.toml"))


# -- results ------------------------------------------------------------------------------------


def _baseline_json(folder: Path, random: Random) -> Read:
    return _baseline(folder, random, "resnet.json", damaged_json)


def _baseline_columns(folder: Path, random: Random) -> Read:
    return _baseline(folder, random, "resnet.safetensors", _damaged_table)


def _baseline(folder: Path, random: Random, name: str, damage: Damage) -> Read:
    from clipq.gating.baseline import load_baseline, load_environment, load_values

    for other in ("resnet.json", "resnet.safetensors"):
        (folder / other).symlink_to(ROOT / "baselines" / other)
    (folder / name).unlink()
    _place(folder / name, (ROOT / "baselines" / name).read_bytes(), damage, random)

    def read() -> object:
        load_environment(folder, "resnet")
        return load_values(folder, "resnet"), load_baseline(folder, "resnet")

    return read


def _damaged_table(content: bytes, random: Random) -> bytes:
    """Damage a safetensors file, often in its header alone, which is then as long as it says."""
    length = int.from_bytes(content[:8], "little")
    if random.random() < 0.4:
        return damaged_bytes(content, random)
    header = json.loads(content[8 : 8 + length])
    own = header.get("__metadata__", {}).get("clipq")
    if own is not None and random.random() < 0.5:
        header["__metadata__"]["clipq"] = damaged_json(own.encode(), random).decode(
            "utf-8", "replace"
        )
        changed = json.dumps(header).encode()
    else:
        changed = damaged_json(json.dumps(header).encode(), random)
    return len(changed).to_bytes(8, "little") + changed + content[8 + length :]


@cache
def _small_table() -> bytes:
    import numpy as np

    from clipq.evaluation.tables import table_content

    columns = {"label": np.arange(9), "id": np.array([f"s{i}" for i in range(9)]),
               "confidence": np.linspace(0, 1, 9)}  # fmt: skip
    return table_content(columns, {"scalars": ["t"], "model": "vit"})[0]


def _table(folder: Path, random: Random) -> Read:
    from clipq.evaluation.tables import parse_table, read_table

    _place(folder / "table", _small_table(), _damaged_table, random)
    content = _damaged_table(_small_table(), random)
    return lambda: _each(
        lambda: read_table(folder / "table"), lambda: parse_table(content, name="cell")
    )


def _cache_entry(folder: Path, random: Random) -> Read:
    from clipq.evaluation.cache import Cache

    cache = Cache(folder)
    path = cache.path("predictions", "ab" * 32, ".safetensors")
    _place(path, _small_table(), _damaged_table, random)
    return lambda: cache.read("predictions", "ab" * 32)


def _images_file(folder: Path, random: Random) -> Read:
    import numpy as np

    from clipq.data.sealed_images import SealedWriter, load

    stream = io.BytesIO()
    images = np.arange(4 * 8 * 8 * 3).astype(np.uint8).reshape(4, 8, 8, 3)
    writer = SealedWriter(stream, images.shape, key="fuzzed")
    for pixels in images:
        writer.add(pixels)
    writer.seal()
    _place(folder / "images.npy", stream.getvalue(), damaged_bytes, random)
    return lambda: int(load(folder / "images.npy", key="fuzzed").sum())


@cache
def _record() -> RunRecord:
    from synthetic_runs import synthetic_run

    return synthetic_run(100, seed=1)


def _damaged_record(content: bytes, random: Random) -> bytes:
    """Damage a record, and mostly give it the id that it then must have."""
    changed = damaged_json(content, random)
    try:
        plain = json.loads(changed)
        if random.random() < 0.8 and isinstance(plain, dict):
            changed = json.dumps(plain | {"id": run_id(plain)}).encode()
    except (ValueError, RecursionError, TypeError):
        pass  # no JSON any more, or holds what has no canonical text
    return changed


@cache
def _record_content() -> bytes:
    plain = _record().to_plain()
    plain["cases"] = plain["cases"][:6]
    plain["planned"] = 6
    return json.dumps(plain | {"id": run_id(plain)}).encode()


def _run_record(folder: Path, random: Random) -> Read:
    from clipq.history.comparison import compare
    from clipq.report.annotations import github, gitlab
    from clipq.report.card import card_html, card_markdown, model_index, release_card
    from clipq.report.comparison_report import comparison_markdown, comparison_text
    from clipq.report.html import html
    from clipq.report.junit import junit
    from clipq.report.markdown import markdown
    from clipq.report.text import summary

    _place(folder / "report.json", _record_content(), _damaged_record, random)

    def read() -> object:
        record = read_run(folder / "report.json")
        if record.passed and not any(case.observed is not None for case in record.cases):
            raise NothingMeasuredError
        for form in (summary, markdown, junit, html, github, gitlab):
            form(record).encode()
        plain = compare(_record(), record).to_plain() | {
            "notes": [], "compared": 0, "regressions": 0,
        }  # fmt: skip
        comparison_text(plain, everything=True), comparison_markdown(plain, everything=True)
        if record.cases:
            card = release_card(record, record.cases[0].case.candidate)
            card_html(card), card_markdown(card), model_index(card)
        return record.to_frame()

    return read


def _report_command(folder: Path, random: Random) -> Read:
    _place(folder / "report.json", _record_content(), _damaged_record, random)
    forms = ("text", "markdown", "junit", "html", "github", "gitlab")
    return _command(["report", str(folder / "report.json"), "--format", random.choice(forms)])


@cache
def _store_content() -> bytes:
    import tempfile

    from clipq.history.store import open_store

    with tempfile.TemporaryDirectory() as folder:
        with open_store("sqlite:///h.db", root=Path(folder)) as store:
            from dataclasses import replace

            record = _record()
            for index in range(3):
                cases = record.cases[:12]
                store.record(replace(record, cases=cases, planned=12 + index))
        return (Path(folder) / "h.db").read_bytes()


def _store_file(folder: Path, random: Random) -> Read:
    _place(folder / "h.db", _store_content(), damaged_bytes, random)
    return lambda: _read_store(folder)


def _store_rows(folder: Path, random: Random) -> Read:
    (folder / "h.db").write_bytes(_store_content())
    connection = sqlite3.connect(folder / "h.db")
    try:
        kinds = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"
        found = connection.execute(kinds).fetchall()
        for kind, name in found:
            if kind == "trigger":
                connection.execute(f'DROP TRIGGER "{name}"')
        tables = [name for kind, name in found if kind == "table"]
        for _ in range(random.choice((1, 1, 3))):
            table = random.choice(tables)
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            value = random.choice([v for v in STRANGE if isinstance(v, str | float | None)])
            if isinstance(value, str):
                value = random.choice(
                    (value.encode("utf-8", "replace"), value.replace("\ud800", ""))
                )
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f'UPDATE "{table}" SET "{random.choice(columns)}" = ?', [value])
        connection.commit()
    finally:
        connection.close()
    return lambda: _read_store(folder)


def _read_store(folder: Path) -> object:
    from clipq.cli.history_text import run_text, runs_text, table_text, trend_text
    from clipq.history.store import open_store

    with open_store("sqlite:///h.db", root=folder, create=False) as store:
        runs = store.runs()
        runs_text(runs)
        for run in runs:
            run_text(run, store.results(run))
            store.cells(run)
            store.load(run)
        if runs:
            table_text(store.trend_table())
            trend_text(store.trend(_record().cases[0].id))
        return store.find("latest")


# -- data ---------------------------------------------------------------------------------------


@cache
def _pictures() -> Mapping[str, bytes]:
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    )
    kinds = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP",
             "tiff": "TIFF", "ppm": "PPM"}  # fmt: skip
    found = {}
    for ending, kind in kinds.items():
        stream = io.BytesIO()
        picture.save(stream, kind)
        found[ending] = stream.getvalue()
    found["eps"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return found


def _image(folder: Path, random: Random) -> Read:
    from clipq.data.decoding import decode_image

    content = damaged_bytes(random.choice(list(_pictures().values())), random)
    return lambda: decode_image(content, "an image")


def _tar(entries: list[tuple[str, bytes]], random: Random | None = None) -> bytes:
    stream = io.BytesIO()
    form = tarfile.USTAR_FORMAT
    if random is not None:
        form = random.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if random is not None and random.random() < 0.1:
                member.type = random.choice((b"1", b"2", b"3", b"5", b"6", b"x", b"L", b"S", b"Z"))
                member.linkname = "/etc/passwd"
            if random is not None and random.random() < 0.05:
                member.size = random.choice((0, 1 << 32, 1 << 62, 7))
            with contextlib.suppress(ValueError, OSError):
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _shards(folder: Path, random: Random) -> Read:
    """A WebDataset of six samples; one of its parts is damaged."""
    from clipq.data import open_probe

    png = _pictures()["png"]
    entries = []
    for number in range(6):
        entries += [
            (f"s{number}.png", png + bytes([number])), (f"s{number}.cls", b"%d" % (number % 2)),
            (f"s{number}.json", b'{"colour": "red", "n": 3}'), (f"s{number}.txt", b"a cat\n"),
        ]  # fmt: skip
    texts = {
        "classnames.txt": b"cat\ndog\n",
        "zeroshot_classification_templates.txt": b"a photo of a {c}.\na {c}\n",
        "attributes.csv": b"file,colour\n" + b"".join(b"s%d,red\n" % n for n in range(6)),
        "classmap.csv": b"class,head_class\ncat,tabby\ndog,hound\n",
        "test/nshards.txt": b"1\n",
    }
    if random.random() < 0.4:
        del texts["attributes.csv"]
    for name, content in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    broken = random.choice((*texts, "0.tar", "0.tar", "entries", "entries", "SHA256SUMS"))
    if broken == "entries":
        at = random.randrange(len(entries))
        name, content = entries[at]
        action = random.randrange(4)
        if action == 0:
            entries[at] = (damaged_text(name, random)[:200] or "x", content)
        elif action == 1:
            entries[at] = (name, damaged_bytes(content, random))
        elif action == 2:
            entries.append(random.choice(entries))
        else:
            del entries[at]
    archive = _tar(entries, random if broken == "entries" else None)
    (folder / "test" / "0.tar").write_bytes(archive)
    if broken == "0.tar":
        _place(folder / "test" / "0.tar", archive, damaged_bytes, random)
    elif broken == "SHA256SUMS":
        line = b"0" * 64 + b"  test/0.tar\n"
        _place(folder / "SHA256SUMS", line, damaged_bytes, random)
    elif broken in texts:
        _place(folder / broken, texts[broken], damaged_bytes, random)
    role = random.choice(("in-distribution", "ood", "shift", "retrieval"))
    group = random.choice(("", "colour"))
    return lambda: _opened(
        open_probe(
            name="p", role=role, source="webdataset:.", split="test", base_dir=folder, group=group
        )
    )


def _opened(probe: Any) -> object:
    """Use a probe as a run would, images included."""
    from clipq.data import unreadable_images

    if not len(probe):
        raise NothingMeasuredError
    return unreadable_images(probe)


def _image_list(folder: Path, random: Random) -> Read:
    from clipq.data import open_probe

    for number in range(4):
        (folder / f"{number}.png").write_bytes(_pictures()["png"] + bytes([number]))
    texts = {
        "list.txt": b"".join(b"%d.png %d\n" % (n, n % 2) for n in range(4)),
        "classnames.txt": b"cat\ndog\n",
        "attributes.csv": b"file,colour\n" + b"".join(b"%d.png,red\n" % n for n in range(4)),
    }
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    broken = random.choice((*texts, "list.txt", "0.png"))
    content = texts.get(broken) or _pictures()["png"]
    _place(folder / broken, content, damaged_bytes, random)
    return lambda: _opened(
        open_probe(
            name="p",
            role="shift",
            source="imagelist:.",
            split="list.txt",
            base_dir=folder,
            group=random.choice(("", "colour")),
        )
    )


def _class_folders(folder: Path, random: Random) -> Read:
    from clipq.data import open_probe

    for name in ("cat", "dog"):
        (folder / "test" / name).mkdir(parents=True)
        _place(folder / "test" / name / "1.png", _pictures()["png"], damaged_bytes, random)
    strange = damaged_text("bird_1", random).replace("/", "").replace("\0", "")[:80] or "x"
    with contextlib.suppress(OSError, ValueError):
        (folder / "test" / strange).mkdir()
        _place(folder / "test" / strange / "1.PNG", _pictures()["png"], damaged_bytes, random)
    return lambda: _opened(
        open_probe(name="p", role="shift", source="folder:.", split="test", base_dir=folder)
    )


@cache
def _parquet_content() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": _pictures()["png"] + bytes([n]), "path": None} for n in range(4)]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.table({"image": images, "label": [0, 1, 0, 1]}, schema=schema)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _parquet(folder: Path, random: Random) -> Read:
    from clipq.data import open_probe

    _place(folder / "d" / "test.parquet", _parquet_content(), damaged_bytes, random)
    if random.random() < 0.2:
        shutil.rmtree(folder / "d")
        content = b'{"splits": ["train", "test"]}'
        _place(folder / "d" / "dataset_dict.json", content, damaged_json, random)

    def read() -> object:
        from clipq.data import look_at_probe

        where = {"name": "p", "role": "shift", "source": "huggingface:d", "split": "test"}
        look_at_probe(**where, base_dir=folder)
        return _opened(open_probe(**where, base_dir=folder))

    return read


@cache
def _feature_content(suffix: str) -> bytes:
    """Features of two samples, as some other program wrote them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save

    features = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    if suffix == "safetensors":
        return save({"features": features}, {"ids": '["a", "b"]'})
    stream = io.BytesIO()
    if suffix == "npz":
        np.savez(stream, ids=np.array(["a", "b"]), features=features)
    else:
        pq.write_table(pa.table({"id": ["a", "b"], "embedding": features.tolist()}), stream)
    return stream.getvalue()


def _features(folder: Path, random: Random) -> Read:
    suffix = random.choice(("npz", "safetensors", "parquet"))
    path = folder / "features" / f"id.{suffix}"
    _place(path, _feature_content(suffix), damaged_bytes, random)

    def read() -> object:
        from clipq.runtimes import runtimes
        from clipq.runtimes.feature_files import FeatureFiles

        return _each(
            lambda: runtimes.get("features").look(path),
            lambda: FeatureFiles(path.parent, {"id": ("a", "b")}).rows("id"),
            lambda: FeatureFiles(path, {"id": ("a", "b"), "other": None}).check() or "nothing said",
        )

    return read


def _model(folder: Path, random: Random) -> Read:
    """A model's folder: configuration, vocabulary or weights are damaged."""
    from clipq.models import load_model
    from clipq.models.source import ModelSource

    source = ROOT / "fixtures" / "models" / "vit-clean"
    names = ("open_clip_config.json", "bpe_vocab.txt.gz", "open_clip_model.safetensors")
    broken = random.choice((names[0], names[0], names[1], names[2]))
    for name in names:
        (folder / name).symlink_to(source / name)
    (folder / broken).unlink()
    damages = {names[0]: damaged_json, names[1]: damaged_bytes, names[2]: _damaged_table}
    _place(folder / broken, (source / broken).read_bytes(), damages[broken], random)
    return lambda: load_model(ModelSource.parse(f"local-dir:{folder}", base_dir=folder)).tokenizer(
        ["a red circle"]
    )


def _repository(folder: Path, random: Random) -> Read:
    """A stranger's project, which `clipq init` looks through."""
    _shards(folder, random)
    _place(folder / "model" / "open_clip_config.json", b'{"model_cfg": {}}', damaged_json, random)
    _place(folder / "quantizers.py", b"import clipq\nX = 1\n", damaged_bytes, random)
    _place(folder / "pyproject.toml", b'[project]\nname = "x"\n', damaged_toml, random)
    return _command([random.choice(("init", "doctor")), *random.choice((["--json"], []))], folder)


# -- texts --------------------------------------------------------------------------------------


def _quantizer_text(folder: Path, random: Random) -> Read:
    from clipq.quant.formats import Format
    from clipq.quant.options import CommonOptions
    from clipq.quant.spec import QuantizerSpec

    text = damaged_text(
        random.choice(
            ("rtn:w8a8", "gptq:w4g64,order=activation@vision", "raana,bits=5.3", "rtn:w8ta8z",
             "rtn:w4,exclude=blocks.0/*,include=visual.*@text", "quarot:w4a4kv4", "w8a8d", "fp32")
        ), random,
    )  # fmt: skip

    def read() -> object:
        spec = QuantizerSpec.parse(text)
        if QuantizerSpec.parse(str(spec)) != spec:
            raise AssertionError("a quantizer's text does not parse back to itself")
        return _each(lambda: CommonOptions.read(spec), lambda: Format.parse(text))

    return read


def _case_id(folder: Path, random: Random) -> Read:
    from clipq.cases import Candidate, Case, Cell, split_key

    text = damaged_text("vit-clean/rtn:w4,exclude=blocks.0/*/id.top1", random)
    return lambda: _each(
        lambda: str(Case.parse(text)), lambda: str(Cell.parse(text)),
        lambda: str(Candidate.parse(text)), lambda: split_key(text),
    )  # fmt: skip


def _selection(folder: Path, random: Random) -> Read:
    """Globs that narrow a gate: a match, or an error, never an empty run."""
    from clipq.evaluation.plan import Selection, plan
    from clipq.settings import load_settings

    globs = {
        "models": "vit-*", "quantizers": "rtn:w4*", "probes": "near-ood", "metrics": "top1",
    }  # fmt: skip
    kind = random.choice(list(globs))
    given = damaged_text(globs[kind], random)
    settings = load_settings(ROOT / "clipq.toml")
    return lambda: _some(plan(settings, Selection(**{kind: (given,)}), profile="quick"))


def _some(cases: Any) -> object:
    if not cases:
        raise NothingMeasuredError
    return cases


def _address(folder: Path, random: Random) -> Read:
    from clipq.data.fetch import download_folder, is_url
    from clipq.history.site.commits import commit_link
    from clipq.history.url import parse_url
    from clipq.models.source import ModelSource

    url = damaged_text(
        random.choice(
            ("https://ada:pw@example.org:80/birds?token=x", "postgresql://a:b@h:5432/d?sslmode=no",
             "sqlite:///a/b.db", "https://example.org/commit/{sha}", "ViT-B-32/laion2b_s34b_b79k",
             "hf-hub:org/name", "local-dir:models/vit", "webdataset:https://example.org/x")
        ), random,
    )  # fmt: skip

    def read() -> object:
        if is_url(url):
            download_folder(url, folder)
        return _each(
            lambda: parse_url(url, root=folder).engine_url(), lambda: commit_link(url),
            lambda: ModelSource.parse(url, base_dir=folder), lambda: _look(url, folder),
        )  # fmt: skip

    return read


def _look(source: str, folder: Path) -> object:
    from clipq.data import look_at_probe

    return look_at_probe(name="p", role="shift", source=source, split="test", base_dir=folder)


_LINES = (
    ("list", "cases", "--profile", "quick"), ("list", "quantizers", "--json"),
    ("power", "--model", "vit-clean"), ("baseline", "list", "--json"), ("history", "list"),
    ("history", "show", "latest"), ("compare", "latest~1", "latest"), ("report", "report.json"),
    ("card", "vit-clean/rtn:w8a8"), ("bisect", "vit-clean/rtn:w4/id.ece"), ("site", "--runs", "3"),
    ("history", "export", "--format", "csv"), ("history", "trend", "vit-*", "--runs", "3"),
    ("probe", "check", "nothing", "--quiet"), ("inspect", "groups", "vit-clean/rtn:w4/no"),
    ("gate", "--policy", "no", "-n0"), ("completion", "bash"), ("doctor", "--json"),
)  # fmt: skip


def _command_line(folder: Path, random: Random) -> Read:
    """A command line with a damaged word, in a folder that holds settings alone."""
    words = list(random.choice(_LINES))
    at = random.randrange(len(words)) if random.random() < 0.2 else random.randrange(1, len(words))
    words[at] = damaged_text(words[at], random)
    if words[0] in ("gate", "init") or words[:1] == ["probe"]:
        words[0] = "list"
    shutil.copy(ROOT / "clipq.toml", folder)
    (folder / "baselines").symlink_to(ROOT / "baselines")
    return _command(words, folder)


def _command(words: list[str], folder: Path | None = None) -> Read:
    """Return what runs a command line in this process; 0 means that something was there."""

    def read() -> object:
        import os

        from clipq.cli.main import main

        before = Path.cwd()
        if folder is not None:
            os.chdir(folder)
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        finally:
            os.chdir(before)
        if "Traceback" in err.getvalue():
            raise AssertionError(err.getvalue())
        if code == 0 and not out.getvalue().strip():
            raise NothingMeasuredError
        for shown in (out.getvalue(), err.getvalue()):
            lines = [] if words[-1] in ("github", "html") else shown.splitlines()
            if "\x1b" in shown or any(line.lstrip().startswith("::") for line in lines):
                raise AssertionError(f"a terminal would obey {shown[:300]!r}")
        return code

    return read


def _each(*reads: Read) -> object:
    """Call several readers of one input; each may refuse it."""
    from clipq.errors import ClipqError

    refused, found = None, []
    for read in reads:
        try:
            found.append(read())
        except ClipqError as error:
            refused = error
    if refused is not None:
        raise refused
    return found


FORMATS: Mapping[str, tuple[Callable[[Path, Random], Read], int, int]] = {
    "clipq.toml": (_settings, 900, 2),
    "margins.toml": (_margins, 400, 2),
    "waivers.toml": (_waivers, 500, 2),
    "latency.toml": (_latencies, 300, 2),
    "table of formats": (_format_table, 300, 2),
    "baseline, JSON": (_baseline_json, 400, 2),
    "baseline, columns": (_baseline_columns, 300, 2),
    "prediction table": (_table, 700, 2),
    "cache entry": (_cache_entry, 400, 2),
    "materialised images": (_images_file, 400, 2),
    "run record": (_run_record, 600, 2),
    "clipq report": (_report_command, 300, 2),
    "history, bytes": (_store_file, 300, 2),
    "history, rows": (_store_rows, 300, 2),
    "image": (_image, 900, 2),
    "WebDataset": (_shards, 800, 2),
    "list of images": (_image_list, 400, 2),
    "class folders": (_class_folders, 200, 2),
    "Parquet": (_parquet, 100, 2),
    "features": (_features, 300, 2),
    "model folder": (_model, 150, 2),
    "unknown project": (_repository, 100, 2),
    "quantizer": (_quantizer_text, 1000, 2),
    "case id": (_case_id, 700, 2),
    "selection": (_selection, 150, 2),
    "address": (_address, 900, 2),
    "command line": (_command_line, 250, 2),
}
"""What to damage, how many inputs a full run makes of it, and how many a quick one."""
