"""Every example in a docstring gives what it shows, and every public name has one.

Examples run in their module's namespace, from the top of the repository. Those that encode a model
share the cache that `clipq.toml` names.
"""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
from public_names import REPOSITORY, public_objects

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SHOWN_BY = {
    # Plain values that one function makes: its example shows them.
    "clipq.exports.tower_source.Source": "clipq.exports.tower_source.source_of",
    "clipq.exports.tower_source.TowerSource": "clipq.exports.tower_source.source_of",
    "clipq.gating.planning.CasePower": "clipq.gating.planning.plan_power",
    "clipq.history.bisect.VerdictChange": "clipq.history.bisect.find_verdict_change",
    "clipq.history.model.TrendTable": "clipq.history.steps.find_steps",
    "clipq.history.steps.Levels": "clipq.history.steps.find_levels",
    "clipq.history.steps.Step": "clipq.history.steps.find_steps",
    "clipq.history.store.Store": "clipq.history.store.open_store",
    "clipq.quant.pipeline.Rounder": "clipq.quant.pipeline.RoundToNearest",
}
WITHOUT = {
    "clipq.data.sources.Attribute": "a protocol; docs/probes.md describes it",
    "clipq.data.sources.Fetch": "a protocol; docs/tutorial/data.md implements it",
    "clipq.data.sources.Look": "a protocol; docs/tutorial/data.md implements it",
    "clipq.data.sources.ProbeSource": "a protocol; docs/tutorial/data.md implements it",
    "clipq.evaluation.plan.load_plugins": "imports a project's modules; docs/tutorial/quantizer.md",
    "clipq.gating.verdict.Judge": "a protocol; IntervalJudge is one",
    "clipq.exports.tower_source.quiet_process": "changes settings of the process while it is held",
    "clipq.quant.methods.Method": "a protocol; docs/tutorial/quantizer.md implements it",
    "clipq.quant.pipeline.Prepared": "what a method's transforms are handed; made by post_training",
    "clipq.runtimes.runtime.Runtime": "a protocol; docs/artifacts/runtime.md implements it",
    "clipq.runtimes.runtime.Tower": "a protocol; docs/artifacts/runtime.md implements it",
    "clipq.testing.checks.NotRun": "an exception with nothing of its own",
    "clipq.testing.checks.Violation": "an exception with nothing of its own",
    "clipq.testing.profiles.load_profile": "changes Hypothesis for the whole process",
}


def _modules() -> list[str]:
    """Return the modules that hold examples."""
    found = []
    for path in (REPOSITORY / "clipq").glob("**/*.py"):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return sorted(found)


@pytest.mark.parametrize("name", _modules())
def test_every_example_of_a_module_gives_what_it_shows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    runner, wrong = doctest.DocTestRunner(verbose=False, optionflags=FLAGS), []
    for test in doctest.DocTestFinder().find(import_module(name), name):
        runner.run(test, out=wrong.append)
    assert not runner.failures, "".join(wrong)
    assert runner.tries


def test_an_example_that_shows_something_else_is_noticed() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test, out=lambda text: None).failed == 1


def test_every_public_name_has_an_example() -> None:
    known = public_objects()
    plain = {name for name, thing in known.items() if _is_plain_error(thing)}
    without = {name for name, thing in known.items() if ">>> " not in (thing.__doc__ or "")}
    assert without - plain == SHOWN_BY.keys() | WITHOUT.keys()
    assert all(">>> " in str(known[shown].__doc__) for shown in SHOWN_BY.values())


def _is_plain_error(thing: object) -> bool:
    """Whether it is a kind of `ClipqError` with nothing of its own: that one's example serves."""
    from clipq.errors import ClipqError

    is_error = isinstance(thing, type) and issubclass(thing, ClipqError)
    return is_error and thing is not ClipqError and "__init__" not in vars(thing)
