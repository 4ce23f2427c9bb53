"""Units run on a Ray cluster end in one outcome each, whatever becomes of its actors and nodes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clipq.errors import SweepError
from clipq.sweep.executor import Outcome
from clipq.sweep.ray_engine import RayExecutor, _Run
from clipq.sweep.units import Unit

if not os.environ.get("CI"):
    pytest.importorskip("ray")

LIMIT = 60.0


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("this stays here")


@dataclass
class Writes:
    """Commits a file per unit by a link that fails where it exists; quantizers say what happens."""

    folder: Path
    seconds: float = 0.0

    def __call__(self, unit: Unit) -> None:
        time.sleep(self.seconds)
        if "hang" in unit.quantizer:
            time.sleep(600)
        if "killed" in unit.quantizer:
            os.kill(os.getpid(), signal.SIGKILL)
        if "fails" in unit.quantizer:
            raise UnpicklableError("no such layer")
        mine = self.folder / f".{unit.id}.{os.getpid()}"
        mine.write_text(str(unit))
        try:
            os.link(mine, self.folder / unit.id)
        except FileExistsError:
            (self.folder / f"again.{os.getpid()}.{unit.id}").touch()


def some(number: int, *more: str) -> list[Unit]:
    return [Unit(f"vit-{i // 10}", f"rtn:w{i}") for i in range(number)] + [
        Unit("vit-0", name) for name in more
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray") if not os.environ.get("CI") else __import__("ray")
    from ray.cluster_utils import Cluster

    # Ray lowers its workers' priority, which on a busy machine would stand still.
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_worker_niceness", "0")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8},
    )
    found.add_node(num_cpus=1, object_store_memory=10**8)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()
    patch.undo()


def test_what_fails_hangs_or_is_killed_is_one_outcome_and_the_rest_is_written(
    cluster: Any, tmp_path: Path
) -> None:
    units = some(12, "fails", "killed", "hang")
    found = {
        o.unit: o for o in RayExecutor(address="auto").run(units, Writes(tmp_path), time_limit=3)
    }
    assert len(found) == len(units)
    here = tmp_path / "here"
    here.mkdir()
    for unit in units[:12]:
        Writes(here)(unit)
        assert found[unit] == Outcome(unit, seconds=found[unit].seconds)
        assert (tmp_path / unit.id).read_bytes() == (here / unit.id).read_bytes()
    fails, killed, hang = (found[unit] for unit in units[12:])
    assert (fails.reason, fails.ended) == ("UnpicklableError: no such layer", False)
    assert (killed.ended, killed.reason[:14]) == (True, "ActorDiedError")
    assert (hang.ended, hang.reason) == (True, "took longer than its limit of 3 s")


def test_units_are_taken_as_they_are_needed_and_closing_ends_the_actors(
    cluster: Any, tmp_path: Path
) -> None:
    taken = Counter[str]()

    def endless() -> Iterator[Unit]:
        for i in range(1_000_000):
            taken["units"] += 1
            yield Unit("vit", f"rtn:w{i}")

    outcomes = RayExecutor(address="auto").run(endless(), Writes(tmp_path), time_limit=LIMIT)
    assert next(iter(outcomes)).done
    outcomes.close()  # type: ignore[attr-defined]
    assert taken["units"] < 20
    files = len(list(tmp_path.iterdir()))
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) - files <= 2


def test_what_no_node_offers_is_refused_at_once(cluster: Any, tmp_path: Path) -> None:
    engine = RayExecutor(address="auto", gpus_per_unit=1)
    with pytest.raises(SweepError, match="no node of the Ray cluster offers 1 CPUs and 1 GPUs"):
        list(engine.run(some(1), Writes(tmp_path), time_limit=LIMIT))


def test_other_versions_are_refused() -> None:
    run = _Run(None, RayExecutor(), iter(()), LIMIT)
    with pytest.raises(SweepError, match=r"torch 1\.0 there"):
        run._compare({"python": "3.0", "clipq": "0", "torch": "1.0"})


def test_a_node_lost_ends_its_unit_and_nothing_is_lost_or_doubled(
    cluster: Any, tmp_path: Path
) -> None:
    units, final = some(30), list[Outcome]()
    lost = next(iter(cluster.worker_nodes))
    work, left = Writes(tmp_path, seconds=0.1), units
    while left:  # as the coordinator does: what ended without a word is tried again
        again = []
        for outcome in RayExecutor(address="auto").run(left, work, time_limit=LIMIT):
            (final if outcome.done else again).append(outcome)
            if len(final) == 8:
                cluster.remove_node(lost, allow_graceful=False)
        assert all(outcome.ended for outcome in again), again
        left = [outcome.unit for outcome in again]
    assert Counter(o.unit for o in final) == Counter(units)
    assert {unit.id for unit in units} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("wrong", [{"cpus_per_unit": 0}, {"gpus_per_unit": -1}, {"workers": 0}])
def test_impossible_resources_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SweepError, match=r"at least 1|more than 0 CPUs"):
        RayExecutor(**wrong)
