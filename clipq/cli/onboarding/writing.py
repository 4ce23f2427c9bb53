"""The texts that `clipq init` writes: commented TOML, safe for any name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from clipq.cli.onboarding.proposal import Model, ProbeProposal, Proposal
from clipq.terminal import one_line

__all__ = ["MARGINS", "TEST", "quoted", "settings_text"]

TEST = "def test_reliability(clipq_case, clipq_gate):\n    clipq_gate(clipq_case)\n"
"""The whole test module of a project."""

_HEAD = """\
# What clipq gates in this repository: every model x quantizer x probe x metric below.
# Written by `clipq init`. Read it once: what it could not know is marked CHECK.
# Paths are relative to this file. Unknown keys are errors, so typing mistakes show.

[clipq]
baselines = "baselines"                # FP32's values: reviewed and committed like code
margins = "baselines/margins.toml"     # how much worse than FP32 is acceptable
cache = ".clipq/cache"                 # encodings; safe to delete, not for version control
report = ".clipq/report"               # report.json, report.md, junit.xml of the last run
policy = "ci"                          # "release": inconclusive cases block, too
device = "cpu"                         # or "cuda"
threads = 1                            # per process: results do not depend on how many there are
batch_size = 256
"""
_MODEL_PLACEHOLDER = """\
# MISSING: no model was found. Say which, and remove the '#':
# [[models]]
# name = "vit-b-32"                      # as in case ids
# source = "ViT-B-32/laion2b_s34b_b79k"  # or hf-hub:ORG/NAME, or local-dir:FOLDER
"""
_ID_PLACEHOLDER = """\
# MISSING: no labelled images were found. Say where they are, and remove the '#':
# [[probes]]
# name = "id"
# role = "in-distribution"               # exactly one; its classes make the zero-shot head
# source = "folder:data/mine"            # data/mine/test/CLASS/*.png; or webdataset:FOLDER,
# split = "test"                         # imagelist:FOLDER, huggingface:ORG/NAME
"""
_CALIBRATION_PLACEHOLDER = """\
# MISSING: a calibration split was not found: images of the same kind, in no other probe. They
# give activation ranges and the temperature; a few hundred suffice. Then remove the '#':
# [[probes]]
# name = "calibration"
# role = "calibration"
# source = {source}
# split = "calibration"
"""
_MORE = """\
# More to ask of the same images; remove the '#' of what you want (and see `clipq list metrics`):
#
# [[probes]]
# name = "corruptions"                   # noise, blur, weather: ImageNet-C's kinds
# role = "corruption"
# source = {source}
# split = {split}
# corruptions = ["*"]
# draws = 1                              # versions of each image; leave it out for all 75
#
# [[probes]]
# name = "pgd"                           # adversarial images; pip install 'pytest-clipq[attacks]'
# role = "adversarial"
# source = {source}
# split = {split}
# samples = 128                          # attacks are slow
# attack = "pgd"
"""

MARGINS = """\
# How much worse than FP32 is still acceptable, in each metric's unit (`clipq list metrics`).
# Written by `clipq init`: a starting point to be reviewed like code, not a measurement.
# Tables are read in order, the last one that matches a case decides. `clipq power` tells which of
# these margins your probes are large enough to decide.

[[margin]]
formats = "*"                  # 8 bits, and whatever no table below matches
[margin.metrics]
# accuracy: shares of the images
top1 = 0.01
top5 = 0.01
"top1-*" = 0.05                # by band of ranks of the features
coverage-at-5 = 0.06           # falls in steps: wider than accuracy
# churn: how many answers change, although accuracy may not
flip-rate = 0.03
negative-flips = 0.02          # right before, wrong now
kl-to-fp32 = 0.01              # nats
top2-gap-shrinkage = 0.02
# calibration: does confidence still mean what it says?
ece = 0.01
ts-ece = 0.01
smooth-ece = 0.01
classwise-ece = 0.005
ace = 0.08                     # unweighted over bins: one sample can count as much as a thousand
mce = 0.6                      # likewise, of the worst bin
confidence-gap = 0.01
nll = 0.02                     # nats
brier = 0.01
temperature-log-ratio = 0.1    # log of a ratio
# selective risk
aurc = 0.01
augrc = 0.005
# out of distribution
"auroc-*" = 0.02
"aupr-*" = 0.02
"fpr95-*" = 0.04
"*-knn" = 0.05                 # depend on few known features
"*-mahalanobis" = 0.05
# other looks, corruptions, attacks
corruption-error = 0.15        # a ratio to FP32's errors
relative-gap = 0.05
added-vulnerability = 0.05
# groups: differences between small parts of a probe are noisy
worst-group-top1 = 0.05
"group-*" = 0.08
# retrieval
"*-recall-*" = 0.06
hubness = 0.3
lost-captions = 0.02           # captions with another embedding than FP32's
embedding-distance = 0.01      # 1 - cosine
# features: is the model still alive?
sqnr = 20.0                    # a floor in dB, not a difference; so are the next three
sqnr-low = 20.0
sqnr-mid = 15.0
sqnr-high = -60.0              # hardly any energy there: for the report, not for the verdict
zero-fraction = 0.001
effective-rank = 1.0           # dimensions
head-energy = 0.02
tail-energy = 0.01

[[margin]]
formats = "w4*"                # 4-bit weights: more is lost, and has to be accepted
[margin.metrics]
top1 = 0.03
top5 = 0.02
"top1-*" = 0.1
coverage-at-5 = 0.2
flip-rate = 0.1
negative-flips = 0.06
kl-to-fp32 = 0.12
top2-gap-shrinkage = 0.06
ece = 0.04
ts-ece = 0.03
smooth-ece = 0.04
classwise-ece = 0.01
confidence-gap = 0.04
nll = 0.12
brier = 0.05
temperature-log-ratio = 0.4
aurc = 0.02
augrc = 0.015
"auroc-*" = 0.08
"aupr-*" = 0.08
"fpr95-*" = 0.1
corruption-error = 0.5
relative-gap = 0.1
added-vulnerability = 0.1
worst-group-top1 = 0.1
"group-*" = 0.12
"*-recall-*" = 0.12
hubness = 1.0
embedding-distance = 0.06
sqnr = 8.0
sqnr-low = 8.0
sqnr-mid = 5.0
effective-rank = 2.0
head-energy = 0.05

# What is known to fail and accepted for now is named here, with the reason; a case that no longer
# fails then fails the gate, so that excuses do not outlive their cause:
# [[expected-failure]]
# cases = ["*/rtn:w4a4/id.top1"]
# reason = "naive 4-bit activations"
"""


def quoted(text: str) -> str:
    """Return a text as a TOML basic string."""
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def settings_text(proposal: Proposal) -> str:
    """Return the whole of clipq.toml."""
    parts = [_general(proposal), _matrix(proposal)]
    parts += [_model(model) for model in proposal.models] or [_MODEL_PLACEHOLDER]
    by_role = {probe.role: probe for probe in proposal.probes if probe.decided}
    head = by_role.get("in-distribution")
    if head is None:
        parts.append(_ID_PLACEHOLDER)
    parts += [_probe(probe) for probe in proposal.probes if probe.role in _FIRST]
    if "calibration" not in by_role:
        source = quoted(head.source if head else "folder:data/mine")
        parts.append(_CALIBRATION_PLACEHOLDER.replace("{source}", source))
    parts += [_probe(probe) for probe in proposal.probes if probe.role not in _FIRST]
    if head is not None:
        source, split = quoted(head.source), quoted(head.split)
        parts.append(_MORE.replace("{source}", source).replace("{split}", split))
    return "\n".join(parts)


_FIRST = ("in-distribution", "calibration")
_NAMED_BY = {
    "folder": "relative to the split's folder, as cat/1.png",
    "imagelist": "as the list names it",
    "webdataset": "the key in its shard, without an ending",
}
"""What an attribute's table calls a sample, by kind of source."""


def _general(proposal: Proposal) -> str:
    if not proposal.plugins:
        return (
            f'{_HEAD}# plugins = ["my_quantizers"]          # modules that register what is yours\n'
        )
    listed = ", ".join(map(quoted, proposal.plugins))
    return f"{_HEAD}plugins = [{listed}]   # imported by every command: they register quantizers\n"


def _matrix(proposal: Proposal) -> str:
    lines = [
        "[matrix]",
        "# METHOD:FORMAT[@TOWER][,OPTION=VALUE]; `clipq list quantizers` shows the methods.",
        "quantizers = [",
        *(f"    {quoted(name)}," for name in proposal.quantizers),
        '    # "smoothquant:w8a8", "gptq:w4", "awq:w4g32", "quarot:w8a8", "rtn:w8a8@vision"',
        '    # "lsq:w4a8@vision" learns, from image-caption pairs: `clipq train --help`',
        "]",
        'metrics = ["*"]                        # globs; narrower ones make a smaller matrix',
        '# exclude = ["MODEL/*/PROBE.*"]        # globs over case ids',
    ]
    return "\n".join(lines) + "\n"


def _model(model: Model) -> str:
    return _table(
        "models",
        [f"# {_plain(model.found)}"],
        [("name", model.name), ("source", model.source)],
    )


def _probe(probe: ProbeProposal) -> str:
    pairs = [
        ("name", probe.name),
        ("role", probe.role),
        ("source", probe.source),
        ("split", probe.split),
        *([("group", probe.group)] if probe.group else []),
    ]
    comments = [f"# {_plain(line)}" for line in _wrapped(f"CHECK: {probe.why}")]
    extra = [f"# {line}" for line in probe.extra]
    free = [name for name in probe.groups if name != probe.group]
    if free:
        extra.append(
            f"# group = {quoted(free[0])}   # divides the samples; there are: "
            f"{_plain(', '.join(free))}"
        )
    named = _NAMED_BY.get(probe.source.partition(":")[0])
    if probe.groups and named:
        extra.append(f"# attributes.csv names each sample in its column `file`: {named}")
    text = _table("probes", comments, pairs, extra)
    if probe.decided:
        return text
    return "".join(f"# {line}\n" if line else "#\n" for line in text.splitlines())


def _table(
    name: str,
    comments: Iterable[str],
    pairs: Iterable[tuple[str, str]],
    extra: Sequence[str] = (),
) -> str:
    lines = [*comments, f"[[{name}]]", *(f"{key} = {quoted(value)}" for key, value in pairs)]
    return "\n".join([*lines, *extra]) + "\n"


def _plain(text: str) -> str:
    """Return a text that stays on its line and within its comment."""
    return one_line(text)


def _wrapped(text: str, width: int = 96) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
