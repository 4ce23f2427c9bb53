"""A release card: what a quantized model's users should know, to attach to a model card.

One model x quantizer of one run: what was measured beside FP32, how sure that is, what was waived,
by whom and until when, and what identifies it all. As Markdown, with the metadata block
(model-index) that model hubs read, and as one HTML page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tabulate import tabulate

from clipq.cases import Candidate
from clipq.errors import RecordError, did_you_mean
from clipq.records import CaseResult, RunRecord, not_applicable_sentences, withheld_sentence
from clipq.report.artifact_facts import (
    artifact_line,
    executed_text,
    is_wrong,
    latency_text,
    operators_text,
)
from clipq.report.candidates import candidate_lines
from clipq.report.fp32 import fp32_remarks
from clipq.report.ladder import Ladder, ladders
from clipq.report.ladder_text import HEADERS as LADDER_HEADERS
from clipq.report.ladder_text import REST, ladder_rows
from clipq.report.looks import chance_of_luck
from clipq.report.markdown import inert
from clipq.report.trained_line import trained_line
from clipq.report.tuning_text import tuning_text
from clipq.report.undecided import surely_fails
from clipq.settings import StatisticsSettings
from clipq.terminal import printable
from clipq.verdicts import POLICIES, Verdict

__all__ = ["Card", "card_html", "card_markdown", "model_index", "plain_statement", "release_card"]

_HEADERS = (
    "probe",
    "metric",
    "FP32",
    "quantized",
    "loss",
    "95 % interval",
    "margin",
    "unit",
    "verdict",
)
_TASKS = {
    "in-distribution": ("zero-shot-image-classification", "Zero-Shot Image Classification"),
    "retrieval": ("image-text-retrieval", "Image-Text Retrieval"),
    "ood": ("out-of-distribution-detection", "Out-of-Distribution Detection"),
}
_FAILURES, _OPEN = "Known failures", "Waived, and not decided"
_STEPS = 12
_OTHER = ("zero-shot-image-classification", "Zero-Shot Image Classification")


@dataclass(frozen=True, slots=True)
class Card:
    """What a card shows.

    Args:
        name: of the released model.
        candidate: the model and quantizer.
        cases: of it, in the order of the record.
        record: the run they are from.
        looks: by release-only probe, how many candidates of the model were judged on its samples,
            this one among them; empty where no store tells.
        facts: further rows of its first table: what was checked of the record.
    """

    name: str
    candidate: Candidate
    cases: tuple[CaseResult, ...]
    record: RunRecord
    looks: Mapping[str, int] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def hindrances(self) -> tuple[str, ...]:
        """What of the run as a whole, not of this pair's cases, speaks against a release."""
        broken = self.record.broken_kernels
        whole = str(self.candidate) in self.record.selection.get("complete", ())
        part = "" if whole and not self.record.unreported else self.record.partial
        unseen = withheld_sentence(self.record.withheld, self.record.policy)
        sentences = [part, unseen, *self.record.problems]
        if broken:
            count = (
                f"{len(broken)} kernel checks fail" if len(broken) > 1 else "a kernel check fails"
            )
            sentences.append(f"{count}: {broken[0].id} {broken[0].reason}".rstrip())
        return tuple(sentence for sentence in sentences if sentence)

    @property
    def releasable(self) -> bool:
        """Whether nothing of this pair blocks under policy ``release``, in a complete sound run.

        That is the policy of the run where it has that name, else the usual one.
        """
        release = self.record.rule if self.record.policy == "release" else POLICIES["release"]
        return not (self.hindrances or any(release.blocks(case.verdict) for case in self.cases))

    @property
    def evidence(self) -> Mapping[str, Any]:
        return self.record.evidence()

    @property
    def quantized(self) -> Mapping[str, Any]:
        """What the record says of the artifact, or of the quantizer: code, coverage, bytes."""
        entry: Mapping[str, Any] = self.evidence.get("quantizers", {}).get(str(self.candidate), {})
        return self.artifact or entry

    @property
    def artifact(self) -> Mapping[str, Any]:
        """What the record says of the artifact; {} of a quantizer."""
        entry: Mapping[str, Any] = self.evidence.get("artifacts", {}).get(str(self.candidate), {})
        return entry

    @property
    def ladder(self) -> Ladder | None:
        """Where the artifact loses; None of a quantizer, and of float graphs."""
        found = ladders(self.record)
        return next((ladder for ladder in found if ladder.candidate == self.candidate), None)

    def role(self, probe: str) -> str:
        return str(self.evidence.get("probes", {}).get(probe, {}).get("role", ""))


def release_card(
    record: RunRecord,
    candidate: Candidate,
    *,
    name: str = "",
    looks: Mapping[str, int] | None = None,
) -> Card:
    """Return the card of one candidate.

    Args:
        record: a run, of the policy ``release`` where a release shall rest on it.
        candidate: which.
        name: of the released model; by default ``model-quantizer``.
        looks: how many candidates of the model were judged on each release-only probe.

    Raises:
        RecordError: the run has no case of it.
    """
    cases = tuple(result for result in record.cases if result.case.candidate == candidate)
    if not cases:
        known = {str(result.case.candidate) for result in record.cases}
        raise RecordError(
            f"the run has no case of {candidate}", hint=did_you_mean(str(candidate), known)
        )
    default = f"{candidate.model}-{candidate.quantizer}"
    return Card(name or default, candidate, cases, record, looks or {})


def card_markdown(card: Card) -> str:
    """Return the card as Markdown, with a metadata block that model hubs read."""
    parts = [
        # DEL is the one control character that JSON leaves as it is.
        f"---\n{json.dumps(model_index(card), indent=2)}\n---".replace("\x7f", "\\u007f"),
        f"# Reliability of {inert(card.name)}",
        _statement(card),
        tabulate([[inert(k), inert(v)] for k, v in _facts(card)], ("", ""), tablefmt="github"),
        "## Worst cases",
        _markdown_table(_worst(card)),
    ]
    if card.ladder is not None:
        rows = [[inert(cell) for cell in row] for row in ladder_rows([card.ladder], each=_STEPS)]
        table = tabulate(rows, LADDER_HEADERS, tablefmt="github", disable_numparse=True)
        said = "\n".join(f"- {inert(text)}" for text in _of_ladder(card.ladder))
        parts += ["## Where it loses", *([table] if rows else []), said]
    for title, waived in _waived(card):
        parts += [f"## {title}", _markdown_waived(waived)]
    parts += [
        "## Everything that was measured",
        f"<details><summary>{len(card.cases)} cases</summary>\n\n"
        f"{_markdown_table(card.cases)}\n\n</details>",
        "## How to read this",
        _EXPLANATION,
    ]
    return "\n\n".join(parts) + "\n"


def card_html(card: Card) -> str:
    """Return the card as one self-contained page without scripts."""
    facts = "".join(f"<tr><th>{_e(k)}</th><td>{_e(v)}</td></tr>" for k, v in _facts(card))
    known = ""
    for title, waived in _waived(card):
        rows = "".join(
            f"<li><b>{_e(c.probe)}.{_e(c.metric)}</b>: {_e(c.reason)}</li>" for c in waived
        )
        known += f"<h2>{_e(title)}</h2><ul>{rows}</ul>"
    state = "good" if card.releasable else "bad"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Reliability of {_e(card.name)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Reliability of {_e(card.name)}</h1>"
        f'<p class="{state}" role="status">{_e(plain_statement(card))}</p>'
        f"<table><caption>Facts</caption><tbody>{facts}</tbody></table>"
        f"<h2>Worst cases</h2>{_html_table(_worst(card), 'Cases nearest to their margins')}"
        f"{_html_ladder(card.ladder)}"
        f"{known}<details><summary>Everything that was measured: {len(card.cases)} cases</summary>"
        f"{_html_table(card.cases, 'All cases')}</details>"
        f"<h2>How to read this</h2><p>{_e(_EXPLANATION)}</p></main></body></html>\n"
    )


def model_index(card: Card) -> dict[str, Any]:
    """Return the ``model-index`` metadata: one result per probe, its metrics' observed values."""
    results = []
    for probe in dict.fromkeys(case.probe for case in card.cases):
        task, title = _TASKS.get(card.role(probe), _OTHER)
        values = [
            {
                "type": case.metric,
                "name": f"{case.metric} ({case.unit})" if case.unit else case.metric,
                "value": case.observed,
            }
            for case in card.cases
            if case.probe == probe and case.observed is not None
        ]
        if values:
            results.append(
                {
                    "task": {"type": task, "name": title},
                    "dataset": {"type": probe, "name": probe},
                    "metrics": values,
                }
            )
    return {
        "tags": ["clip", "quantization", "clipq"],
        "library_name": "open_clip",
        "model-index": [{"name": card.name, "results": results}],
    }


def plain_statement(card: Card) -> str:
    """Return the one sentence that says whether to release, and why not."""
    counts = dict.fromkeys(Verdict, 0)
    for case in card.cases:
        counts[case.verdict] += 1
    listed = ", ".join(f"{n} {verdict.value}" for verdict, n in counts.items() if n)
    if card.releasable:
        waived = {title: len(cases) for title, cases in _waived(card)}
        excuses = [
            f"{n} {one if n == 1 else many}"
            for title, one, many in (
                (_FAILURES, "known failure", "known failures"),
                (_OPEN, "waived case that is not decided", "waived cases that are not decided"),
            )
            if (n := waived.get(title, 0))
        ]
        but = f", but for {' and '.join(excuses)}" if excuses else ""
        return f"As reliable as FP32 within the reviewed margins{but}: {listed}."
    return f"Not shown to be as reliable as FP32: {'; '.join([listed, *card.hindrances])}."


def _waived(card: Card) -> Iterator[tuple[str, list[CaseResult]]]:
    """Yield what was waived under two titles: what fails, and what could not be told."""
    known = {each.name for each in fields(StatisticsSettings)}
    used = {key: value for key, value in card.record.statistics.items() if key in known}
    statistics = StatisticsSettings(**used)
    waived = [case for case in card.cases if case.verdict is Verdict.WAIVED]
    for title, fails in ((_FAILURES, True), (_OPEN, False)):
        found = [case for case in waived if surely_fails(case, statistics) is fails]
        if found:
            yield title, found


def _statement(card: Card) -> str:
    return f"**{inert(plain_statement(card))}**"


def _facts(card: Card) -> list[tuple[str, str]]:
    record, evidence = card.record, card.evidence
    model = evidence.get("models", {}).get(card.candidate.model, {})
    baseline = evidence.get("baselines", {}).get(card.candidate.model, {})
    quantized, lines = card.quantized, candidate_lines(record)
    facts = [
        ("model", f"{card.candidate.model}  {model.get('source', '')}".strip()),
        ("FP32 weights", f"sha256 {model.get('weights_sha256', 'unknown')}"),
        ("artifact" if card.artifact else "quantizer", card.candidate.quantizer),
        ("run", f"{record.id[:16]}, {record.started or 'no date'}"),
        ("policy", f"{record.policy}: {', '.join(record.blocks)} block"),
        ("in short", next(one.text for one in lines if one.candidate == card.candidate)),
        ("baseline", f"{baseline.get('file', '')} approved {baseline.get('approved', 'never')}"),
    ]
    against = fp32_remarks(record).get(card.candidate.model, [])
    facts += [("FP32 itself", str(remark)) for remark in (*against, *model.get("remarks", ()))]
    if quantized.get("share") is not None:
        facts.append(("quantized share", f"{quantized['share']:.1%} of weight multiply-adds"))
    if quantized.get("weight_bits") is not None:
        facts.append(("bits per weight", f"{quantized['weight_bits']:.2f}, scales included"))
    if quantized.get("bytes") and quantized.get("float_bytes"):
        ratio = quantized["bytes"] / quantized["float_bytes"]
        facts.append(("size", f"{quantized['bytes'] / 1e6:.1f} MB, {ratio:.0%} of FP32"))
    if latency := latency_text(quantized):
        facts.append(("latency", latency))
    tuned = evidence.get("tunings", {}).get(str(card.candidate))
    if tuned:
        losses = f"{tuned['loss_before']:.4g} -> {tuned['loss']:.4g} nats a pair"
        said = f"{tuning_text(tuned)}, {tuned['objective']} loss {losses}"
        facts.append(("logit scale", said.removeprefix("logit scale ")))
        facts.append(("tuned on", f"pairs {tuned['proxy_fingerprint']}"))
    facts += _of_artifact(card)
    facts += [(f"release-only probe {probe}", _seen_by(card, probe)) for probe in _kept(card)]
    if record.commit:
        dirty = " with uncommitted changes" if record.commit.get("dirty") else ""
        facts.append(("commit", f"{record.commit['sha']}{dirty}"))
    for environment in evidence.get("environments", {}).values():
        text = ", ".join(f"{name} {value}" for name, value in environment.items())
        facts.append(("environment", text))
    facts.append(("clipq", record.versions.get("clipq", "unknown")))
    if quantized.get("code_sha256"):
        facts.append(("code", f"sha256 {quantized['code_sha256']}"))
    if text := trained_line(quantized):
        learnt = quantized["trained"]
        facts.append(("trained", text))
        facts.append(("trained state", f"sha256 {learnt['sha256']}"))
        parent = learnt.get("parent_sha256") or "unknown"
        facts.append(("trained from", f"FP32 weights sha256 {parent}"))
    facts += [("not covered by it", text) for text in quantized.get("code_unknown", ())]
    return [*facts, *card.facts]


def _of_artifact(card: Card) -> Iterator[tuple[str, str]]:
    """Yield what identifies an artifact, what was found in it and what it cannot have."""
    name, entry = str(card.candidate), card.artifact
    if entry:
        yield "runtime", artifact_line(entry)
        for files in entry.get("files", {}).values():
            yield from (("file", f"{path}  sha256 {sha}") for path, sha in files.items())
        if said := operators_text(entry):
            yield "operators", said
        if said := executed_text(entry):
            yield "executed in", said
        for one in entry.get("findings", []):
            yield (
                "finding" if is_wrong(one) else "note",
                f"{one['problem']} {one.get('fix', '')}".strip(),
            )
    own = {name: card.record.not_applicable.get(name, {})}
    yield from (("not applicable", sentence) for sentence in not_applicable_sentences(own))


def _kept(card: Card) -> list[str]:
    """The release-only probes that the candidate was judged on."""
    probes = card.evidence.get("probes", {})
    judged = dict.fromkeys(case.probe for case in card.cases if case.observed is not None)
    return [name for name in judged if probes.get(name, {}).get("use")]


def _seen_by(card: Card, probe: str) -> str:
    """Return how many candidates had the chance to pass on a probe."""
    count = card.looks.get(probe, 0)
    if not count:
        return "no history store tells how many candidates were judged on it"
    alpha = card.record.statistics.get("alpha", StatisticsSettings().alpha)
    luck = chance_of_luck(count, tail=float(alpha) / 2)
    who = "one candidate has" if count == 1 else f"{count:,} candidates have"
    return (
        f"{who} been judged on its samples: at the margin, up to {luck:.0%} that one passes by luck"
    )


def _worst(card: Card, count: int = 12) -> list[CaseResult]:
    """The cases nearest to their margins or beyond them."""
    judged = [
        c
        for c in card.cases
        if c.estimate.loss is not None and c.estimate.margin and c.baseline is not None
    ]
    return sorted(judged, key=lambda case: (-case.severity, case.id))[:count]


def _row(case: CaseResult) -> tuple[str, ...]:
    interval = (
        ""
        if case.estimate.low is None
        else f"[{case.estimate.low:+.4g}, {case.estimate.high or 0:+.4g}]"
    )
    numbers = [case.baseline, case.observed, case.estimate.loss]
    shown = ["-" if value is None else f"{value:.4g}" for value in numbers]
    margin = "-" if case.estimate.margin is None else f"{case.estimate.margin:.4g}"
    return (case.probe, case.metric, *shown, interval, margin, case.unit, case.verdict.value)


def _markdown_table(cases: Sequence[CaseResult]) -> str:
    rows = [[inert(cell) for cell in _row(case)] for case in cases]
    return tabulate(rows, _HEADERS, tablefmt="github", disable_numparse=True)


def _markdown_waived(cases: Sequence[CaseResult]) -> str:
    return "\n".join(f"- {inert(c.probe)}.{inert(c.metric)}: {inert(c.reason)}" for c in cases)


def _of_ladder(ladder: Ladder) -> list[str]:
    return [*([REST] if ladder.steps else []), *ladder.missing]


def _html_ladder(ladder: Ladder | None) -> str:
    if ladder is None:
        return ""
    rows = ladder_rows([ladder], each=_STEPS)
    table = _html_rows(LADDER_HEADERS, rows, "The largest rests") if rows else ""
    said = "".join(f"<li>{_e(text)}</li>" for text in _of_ladder(ladder))
    return f"<h2>Where it loses</h2>{table}<ul>{said}</ul>"


def _html_table(cases: Sequence[CaseResult], caption: str) -> str:
    return _html_rows(_HEADERS, map(_row, cases), caption)


def _html_rows(headers: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    head = "".join(f'<th scope="col">{_e(title)}</th>' for title in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide" role="region" aria-label="{_e(caption)}" tabindex="0">'
        f"<table><caption>{_e(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _e(text: object) -> str:
    return html.escape(printable(str(text)))


_EXPLANATION = (
    "Loss is how much worse than FP32 the quantized model is on the same samples, in the metric's "
    "unit; positive is worse. A case passes where the whole confidence interval of the loss lies "
    "below the margin, and fails where it lies surely above, corrected for the number of the "
    "candidate's cases. Of the rest it is suspect where the loss probably exceeds the margin, and "
    "inconclusive otherwise. Simulated quantization was judged unless the quantizer's text says "
    "compute=integer, or an artifact is named: its own files were run."
)
_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c2330;--paper:#fff;--line:#d5dae3;--good:#0b6b3a;"
    "--bad:#a3161f}@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--paper:#12161d;"
    "--line:#333c4a;--good:#5fd394;--bad:#ff8a8f}}body{font:16px/1.5 system-ui,sans-serif;"
    "color:var(--ink);background:var(--paper);margin:0}main{max-width:64rem;margin:auto;"
    "padding:1.5rem}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;"
    "font-size:.875rem;margin:1rem 0}caption{text-align:left;font-weight:600}th,td{text-align:left;"
    "padding:.3rem .6rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}"
    "th{overflow-wrap:normal}.wide{overflow-x:auto}.wide td{white-space:nowrap}"
    ".good,.bad{font-weight:600;border-left:.3rem solid;padding-left:.75rem}"
    ".good{color:var(--good)}.bad{color:var(--bad)}summary{cursor:pointer}"
)
