"""A card is written only on the ground of a record that stands for what lies here."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clipq.artifact_settings import ArtifactSettings
from clipq.cases import Candidate
from clipq.cli import signature
from clipq.cli.signature import signature_line
from clipq.errors import RecordError
from clipq.evaluation.artifact_standing import artifact_differences, artifact_unknowns
from clipq.evaluation.identity import method_evidence
from clipq.evaluation.plan import plan
from clipq.gating import standing
from clipq.gating.baseline import load_baseline
from clipq.gating.input_files import input_files
from clipq.gating.margins import load_margins
from clipq.gating.standing import check_standing, not_compared
from clipq.models import ModelSource, identity
from clipq.provenance import sha256_file
from clipq.records import CaseResult, RunRecord
from clipq.settings import load_settings
from clipq.verdicts import Verdict

REPOSITORY = Path(__file__).parents[3]
CANDIDATE = Candidate("vit-clean", "rtn:w8")


@pytest.fixture(scope="module")
def settings():
    return load_settings(REPOSITORY / "clipq.toml")


@pytest.fixture
def record(settings, monkeypatch):
    """A complete run of one candidate, as this repository would judge it."""
    monkeypatch.setattr(standing, "git_commit", lambda folder: {"sha": "ab" * 20})
    margins = load_margins(settings.margins)
    model = settings.model("vit-clean").source
    source = ModelSource.parse(model, base_dir=settings.root)
    evidence = {
        "models": {"vit-clean": {"source": model, **identity(source).to_plain()}},
        "quantizers": {str(CANDIDATE): method_evidence(CANDIDATE.quantizer)},
        "baselines": {
            "vit-clean": {"columns_sha256": load_baseline(settings.baselines, "vit-clean").digest}
        },
    }
    cases = [
        CaseResult(case, Verdict.PASS, observed=0.5)
        for case in plan(settings)
        if case.candidate == CANDIDATE
    ]
    first = cases[0]
    applied = replace(first.estimate, margin=margins.margin(first.case))
    cases[0] = replace(first, estimate=applied, evidence=evidence)
    return RunRecord(
        settings.policy,
        len(cases),
        tuple(cases),
        statistics=asdict(settings.statistics),
        commit={"sha": "ab" * 20, "date": "", "subject": "", "branch": "", "dirty": False},
        blocks=settings.rule.verdicts,
        selection={"complete": [str(CANDIDATE)], "of": 9000},
        inputs=input_files(settings),
    )


def check(record, settings):
    check_standing(record, CANDIDATE, settings, source="report.json")


def first(record, **values):
    return replace(record, cases=(replace(record.cases[0], **values), *record.cases[1:]))


def edited(record, **values):
    """Return the record of a quantizer whose code was another."""
    evidence = record.evidence()
    made = evidence["quantizers"][str(CANDIDATE)]
    return first(record, evidence={**evidence, "quantizers": {str(CANDIDATE): made | values}})


def of_model(record, **values):
    """Return the record of another model under the same name."""
    evidence = record.evidence()
    made = evidence["models"]["vit-clean"] | values
    return first(record, evidence={**evidence, "models": {"vit-clean": made}})


def by_other(record, kind):
    """Return the record of a run that another file planned or judged."""
    other = {"file": f"loose-{kind}.toml", "sha256": "0" * 64}
    return replace(record, inputs={**record.inputs, kind: other})


def test_a_record_of_what_lies_here_is_good_ground(record, settings):
    check(record, settings)
    assert not_compared(record, CANDIDATE, settings) == ()


def test_fp32_with_a_tuned_scale_has_no_code_to_compare(record, settings):
    tuned = Candidate("vit-clean", "fp32+logit-scale")
    cases = [
        replace(result, case=replace(result.case, cell=tuned.on(result.probe)))
        for result in record.cases
    ]
    evidence = {**record.evidence(), "quantizers": {}}
    cases[0] = replace(cases[0], evidence=evidence)
    said = list(standing._of_making(replace(record, cases=tuple(cases)), tuned, cases, settings))
    assert said == []


def test_what_cannot_be_compared_is_told(record, settings, monkeypatch):
    changed = replace(record, commit=dict(record.commit) | {"dirty": True})
    (said,) = not_compared(changed, CANDIDATE, settings)
    assert said.startswith("the checkout had changes that are in no commit when it was measured: ")
    monkeypatch.setattr(standing, "git_commit", lambda folder: {"sha": "ab" * 20, "dirty": True})
    assert " in no commit now: " in not_compared(record, CANDIDATE, settings)[0]
    hub = replace(settings.model("vit-clean"), source="hf-hub:org/name")
    from_hub = replace(settings, models=(hub,))
    assert "of hf-hub:org/name are not in" in not_compared(record, CANDIDATE, from_hub)[1]


def test_the_model_that_the_settings_name_now_is_the_one_that_was_measured(record, settings):
    """The same name in clipq.toml, with the folder of another model behind it."""
    noisy = replace(settings.model("vit-clean"), source=settings.model("vit-noisy").source)
    with pytest.raises(RecordError, match=r"measured was .*clean, clipq\.toml names .*noisy"):
        check(record, replace(settings, models=(noisy,)))
    same = of_model(record, source=noisy.source)
    with pytest.raises(RecordError, match=r"weights of vit-clean .* hash to 98784866"):
        check(same, replace(settings, models=(noisy,)))
    hub = replace(noisy, source="hf-hub:org/name", sha256="AB" * 32)
    there = of_model(record, source=hub.source, weights_sha256="cd" * 32)
    with pytest.raises(RecordError, match="those of hf-hub:org/name to abababababab"):
        check(there, replace(settings, models=(hub,)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda run: edited(run, code_sha256="0" * 64, code={"clipq.quant": "0", "x": "1"}),
            r"the quantizer was edited since \(clipq.quant, x\)",
        ),
        (
            lambda run: edited(run, code_sha256="0" * 64),
            r"edited since \(an environment variable\)",
        ),
        (lambda run: edited(run, method_version=7), "the quantizer was edited since"),
        (lambda run: first(run, evidence={}), "does not say which code was measured"),
        (
            lambda run: replace(run, commit={"sha": "cd" * 20}),
            "of commit cdcdcdcdcdcd, checked out is abababababab",
        ),
        (lambda run: replace(run, commit={}), "of commit none, checked out is abab"),
        (
            lambda run: replace(run, blocks=("fail",)),
            "under policy ci fail blocked, here it blocks fail, suspect",
        ),
        (
            lambda run: replace(run, statistics=dict(run.statistics) | {"alpha": 1e-6}),
            r"its alpha was 1e-06, \[statistics\] says 0.05",
        ),
        (
            lambda run: first(run, estimate=replace(run.cases[0].estimate, margin=0.9)),
            "was judged by the margin 0.9, .*margins.toml says",
        ),
        (
            lambda run: first(run, verdict=Verdict.WAIVED, reason="expected: nothing"),
            "excused as an expected failure, .*margins.toml names none",
        ),
        (
            lambda run: first(run, verdict=Verdict.WAIVED, waived_by="eve", reason="so"),
            "has a waiver of eve that .*waivers.toml lacks",
        ),
        (lambda run: of_model(run, config_sha256="0" * 64), "the config of vit-clean .* to 0000"),
        (
            lambda run: first(run, evidence={**run.evidence(), "models": {}}),
            "does not say which model was measured",
        ),
        (
            lambda run: by_other(run, "settings"),
            r"other settings \(loose-settings.toml\)",
        ),
        (lambda run: by_other(run, "margins"), r"other margins \(loose-margins.toml\) than base"),
        (lambda run: by_other(run, "waivers"), r"other waivers \(loose-waivers.toml\) than base"),
        (lambda run: replace(run, inputs={}), "does not say which settings it was made by"),
        (lambda run: replace(run, cases=run.cases[:-2]), "lacks 2 of the candidate's cases, vit-"),
    ],
)
def test_a_record_of_anything_else_is_refused_with_the_difference(record, settings, change, said):
    with pytest.raises(RecordError, match=said) as error:
        check(change(record), settings)
    assert "run the gate again" in error.value.hint


needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


@pytest.fixture
def signed(tmp_path):
    """A signed record, and who may sign."""
    record, key, allowed = (tmp_path / name for name in ("report.json", "key", "allowed"))
    record.write_text("{}")
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", key)
    public = key.with_suffix(".pub").read_text()
    allowed.write_text(f"ada@example.org {public}")
    ssh_keygen("-Y", "sign", "-q", "-f", key, "-n", signature.NAMESPACE, record)
    return record, allowed


def ssh_keygen(*arguments):
    subprocess.run(["ssh-keygen", *map(str, arguments)], check=True, capture_output=True)


@needs_ssh
class TestArtifacts:
    """An artifact has files where a quantizer has code; whoever signs wants them to lie here."""

    @pytest.fixture
    def here(self, tmp_path):
        for name in ("image.onnx", "image.onnx.data", "text.onnx"):
            (tmp_path / name).write_bytes(name.encode())
        return tmp_path

    @pytest.fixture
    def made(self, here):
        held = {path.name: sha256_file(path) for path in sorted(here.iterdir())}
        text = {"text.onnx": held.pop("text.onnx")}
        versions = {"onnxruntime": "1.31.0"}
        return {
            "runtime": "onnxruntime",
            "versions": versions,
            "files": {"image": held, "text": text},
        }

    ORT = ArtifactSettings("ort", "vit", "onnxruntime", image="image.onnx", text="text.onnx")

    def told(self, made, here, **changes):
        return list(artifact_differences(made, replace(self.ORT, **changes), root=here))

    def test_the_files_that_were_measured_stand_wherever_they_lie(self, made, here):
        assert self.told(made, here) == []
        (here / "moved").mkdir()
        shutil.copy(here / "text.onnx", here / "moved" / "t.onnx")
        (here / "text.onnx").unlink()
        assert self.told(made, here, text="moved/t.onnx") == []

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("image.onnx", "artifact changed: image.onnx hashes to"),
            ("image.onnx.data", "artifact changed: image.onnx.data hashes to"),
            ("text.onnx", "artifact changed: text.onnx hashes to"),
        ],
    )
    def test_a_file_that_was_swapped_is_named_and_so_is_what_belongs_to_one(
        self, made, here, name, said
    ):
        (here / name).write_bytes(b"another")
        assert said in self.told(made, here)[0]

    def test_files_that_traded_places_are_others(self, made, here):
        image, text = here / "image.onnx", here / "text.onnx"
        image.write_bytes(b"text.onnx")
        text.write_bytes(b"image.onnx")
        assert [said.split(" hashes")[0] for said in self.told(made, here)] == [
            "artifact changed: image.onnx",
            "artifact changed: text.onnx",
        ]

    def test_what_is_missing_or_run_by_another_is_named(self, made, here):
        assert (
            "runtime onnxruntime, the settings name openvino"
            in self.told(made, here, runtime="openvino")[0]
        )
        (here / "image.onnx.data").unlink()
        assert "image.onnx.data, which belonged to it, is not here" in self.told(made, here)[0]
        (here / "image.onnx").unlink()
        assert "no file" in self.told(made, here)[0]
        assert self.told({"runtime": "onnxruntime"}, here) == [
            "it does not say which files were measured"
        ]

    def test_what_a_recipe_would_make_now_is_said_to_be_unknown(self, made, here):
        recipe = replace(self.ORT, image="", text="", recipe="ort-dynamic")
        made = made | {"recipe": "ort-dynamic"}
        assert list(artifact_differences(made, recipe, root=here)) == []
        unknown = list(artifact_unknowns(made, recipe, root=here))
        assert "what it would make now was not compared" in unknown[0]
        (here / "image.onnx").unlink()  # the cache was emptied
        assert list(artifact_differences(made, recipe, root=here)) == []
        assert "no longer in the cache" in next(artifact_unknowns(made, recipe, root=here))
        assert "measured was recipe ort-dynamic" in self.told(made, here)[0]

    def test_another_version_of_the_runtime_is_told(self, made, here):
        (said,) = artifact_unknowns(made, self.ORT, root=here)
        assert "measured with onnxruntime 1.31.0, installed here is" in said

    def test_a_record_of_an_artifact_stands_for_no_quantizer_and_the_other_way_round(
        self, record, settings, made
    ):
        model = settings.model("vit-clean").name
        shipped = replace(self.ORT, model=model, name=CANDIDATE.quantizer)
        declared = replace(settings, artifacts=(*settings.artifacts, shipped))
        with pytest.raises(RecordError, match="does not say which files were measured"):
            check(record, declared)
        kinds = {**record.cases[0].evidence, "artifacts": {str(CANDIDATE): made}}
        with pytest.raises(RecordError, match="of an artifact 'rtn:w8', the settings declare none"):
            check(first(record, evidence=kinds), settings)


def test_a_signature_is_told_by_its_signer(signed):
    record, allowed = signed
    assert signature_line(record, allowed) == "signed by ada@example.org"
    assert signature_line(record, None) == "not checked: pass --allowed-signers"


@needs_ssh
def test_no_other_signature_is_taken(signed, tmp_path, monkeypatch):
    record, allowed = signed
    record.write_text("{ }")
    with pytest.raises(RecordError, match="not one of an allowed signer"):
        signature_line(record, allowed)
    record.write_text("{}")
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    allowed.write_text(f"eve@example.org {(tmp_path / 'other.pub').read_text()}")
    with pytest.raises(RecordError, match="not one of an allowed signer"):
        signature_line(record, allowed)
    with pytest.raises(RecordError, match="no file of allowed signers"):
        signature_line(record, tmp_path / "gone")
    allowed.write_text(f"ada@example.org {(tmp_path / 'key.pub').read_text()}")
    (tmp_path / "report.json.sig").unlink()
    ssh_keygen("-Y", "sign", "-q", "-f", tmp_path / "key", "-n", "git", record)
    with pytest.raises(RecordError, match="not one of an allowed signer"):
        signature_line(record, allowed)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RecordError, match="ssh-keygen is not installed"):
        signature_line(record, allowed)


def test_an_unsigned_record_says_so_and_is_refused_where_a_signature_is_asked_for(tmp_path):
    record, allowed = tmp_path / "report.json", tmp_path / "allowed"
    allowed.touch()
    assert signature_line(record, None) == "none: the record is unsigned"
    with pytest.raises(RecordError, match="is unsigned: there is no") as error:
        signature_line(record, allowed)
    assert f"ssh-keygen -Y sign -f KEY -n {signature.NAMESPACE}" in error.value.hint
