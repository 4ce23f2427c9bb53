"""Units run on a Ray cluster end in one outcome each, whatever becomes of its actors and nodes."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sweep_works
from sweep_works import FakeWork, FolderStore

from clipq.errors import SweepError
from clipq.sweep import ray_engine
from clipq.sweep.attempts import Attempts
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.ray_cluster import check_versions, import_ray, joined, reason_of_end, versions
from clipq.sweep.ray_engine import RayExecutor
from clipq.sweep.units import Unit

if not os.environ.get("CI"):
    pytest.importorskip("ray")

LIMIT = 60.0
NODE = {"object_store_memory": 10**8}


def some(number: int, *more: str) -> list[Unit]:
    return [Unit("vit", name) for name in (*(f"rtn:w{i}" for i in range(number)), *more)]


def quiet(folder: Path, units: list[Unit]) -> dict[str, str]:
    """Return the parts of an undisturbed run in this process."""
    for unit in units:
        FakeWork(folder)(unit)
    return FolderStore(folder).content()


def logged(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def soon(holds: Any, *, seconds: float = 30.0) -> bool:
    """Wait for something to hold."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(found)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of a core each; none has a GPU."""
    import ray
    from ray.cluster_utils import Cluster

    # Ray lowers its workers' priority, which on a busy machine would stand still.
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_worker_niceness", "0")
    patch.setenv("RAY_TQDM_PATCH_PRINT", "0")  # of this process too, for good
    ray.cloudpickle.register_pickle_by_value(sweep_works)
    head = {"num_cpus": 1, "include_dashboard": False} | NODE
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=1, **NODE)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()
    patch.undo()


@contextmanager
def another_node(cluster: Any, **offers: Any) -> Iterator[None]:
    node = cluster.add_node(**NODE, **offers)
    try:
        yield
    finally:
        cluster.remove_node(node)


def test_what_fails_hangs_or_is_killed_is_one_outcome_and_the_rest_is_written(
    cluster: Any, tmp_path: Path
) -> None:
    wrong = {
        "raise:w4": ("ValueError: no such layer", False),
        "odd:w4": ("OddError: its message cannot be shown", False),
        "exit:w4": ("ActorDiedError", True),
        "memory:w4": ("MemoryError", False),
        "die:w4": ("ActorDiedError", True),
        "hang:w4": ("took longer than its limit of 3 s", True),
    }
    units, work = some(6, *wrong), FakeWork(tmp_path / "parts")
    found = list(RayExecutor(address="auto").run(units, work, time_limit=3))
    assert Counter(o.unit for o in found) == Counter(units)
    bad = {o.unit.quantizer: o for o in found if not o.done}
    assert bad.keys() == wrong.keys()
    for name, (reason, ended) in wrong.items():
        assert reason in bad[name].reason
        assert bad[name].ended == ended
    assert FolderStore(tmp_path / "parts").content() == quiet(tmp_path / "quiet", units[:6])


def test_an_actor_keeps_to_its_model_while_units_of_it_are_near(
    cluster: Any, tmp_path: Path
) -> None:
    units = [Unit(model, f"rtn:w{i}") for i in range(12) for model in ("vit", "resnet")]
    work = FakeWork(tmp_path / "parts", seconds=0.02, log=tmp_path / "log")
    assert all(o.done for o in RayExecutor(address="auto").run(units, work, time_limit=LIMIT))
    models: dict[str, list[str]] = {}
    for process, model, _ in logged(tmp_path / "log"):
        models.setdefault(process, []).append(model)
    assert sum(map(len, models.values())) == len(units)
    for done in models.values():
        assert sum(a != b for a, b in itertools.pairwise(done)) <= 2, models


def test_units_are_taken_as_they_are_needed_and_closing_ends_the_actors(
    cluster: Any, tmp_path: Path
) -> None:
    taken = Counter[str]()

    def endless() -> Iterator[Unit]:
        for i in range(1_000_000):
            taken["units"] += 1
            yield Unit("vit", f"rtn:w{i}")

    log = tmp_path / "log"
    work = FakeWork(tmp_path / "parts", log=log)
    outcomes = RayExecutor(address="auto").run(endless(), work, time_limit=LIMIT)
    assert next(iter(outcomes)).done
    outcomes.close()  # type: ignore[attr-defined]
    assert taken["units"] < 20
    processes = {int(process) for process, *_ in logged(log)}
    assert soon(lambda: not any(Path(f"/proc/{one}").exists() for one in processes))


def test_a_unit_waits_for_a_gpu_as_long_as_it_is_told_to(cluster: Any, tmp_path: Path) -> None:
    work = FakeWork(tmp_path)
    for patience in (0.0, 0.5):
        engine = RayExecutor(address="auto", gpus_per_unit=1, patience=patience)
        with pytest.raises(SweepError, match=r"no node .* offers 1 CPUs and 1 GPUs") as refused:
            list(engine.run(some(1), work, time_limit=LIMIT))
        assert f"waited {patience:g} s" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_what_ray_ends_for_memory_is_an_outcome_that_says_so_and_others_go_on(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 1 % of its memory a node has always used more: Ray ends whatever works there.
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "500")
    units, work = some(3), FakeWork(tmp_path, seconds=5.0)
    engine = RayExecutor(address="auto", gpus_per_unit=0.5, workers=1)
    with another_node(cluster, num_cpus=1, num_gpus=1):
        found = list(engine.run(units[:1], work, time_limit=LIMIT))
        work.seconds = 0.0
        others = list(RayExecutor(address="auto", workers=1).run(units, work, time_limit=LIMIT))
    (ended,) = found
    assert ended.ended
    assert ended.reason.startswith("out of memory: 1 worker(s) were killed")
    assert ended.gpu_seconds == pytest.approx(ended.seconds / 2)
    assert {o.unit for o in others} == set(units)


def test_that_others_have_the_cluster_is_told_and_units_wait(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import ray

    monkeypatch.setattr(ray_engine, "TELL_AFTER", 0.2)
    holder = ray.remote(num_cpus=1)(type("Holder", (), {"ready": lambda _: True}))
    others = [holder.remote() for _ in range(2)]
    assert ray.get([one.ready.remote() for one in others])
    outcomes = RayExecutor(address="auto").run(some(1), FakeWork(tmp_path), time_limit=LIMIT)
    leaving = threading.Timer(3.0, lambda: [ray.kill(one) for one in others])
    leaving.start()
    assert [o.done for o in outcomes] == [True]
    leaving.join()
    told = capsys.readouterr().err
    assert "waiting for the Ray cluster: an actor needs 1 CPUs and 0 GPUs; 0 CPUs" in told


DRIVER = """
import json, sys
from pathlib import Path
import ray, sweep_works
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.ray_engine import RayExecutor
from clipq.sweep.units import Unit

folder, address = Path(sys.argv[1]), sys.argv[2]
ray.cloudpickle.register_pickle_by_value(sweep_works)
work = sweep_works.FakeWork(folder / "parts", log=folder / "log")
summary = run_sweep(
    [Unit("vit", name) for name in ("rtn:w8", "hang:w8")], work,
    store=sweep_works.FolderStore(folder / "parts"), identity={"plan": "0a"}, folder=folder,
    executor=RayExecutor(address=address, workers=1), time_limit=600,
)
print(json.dumps([summary.done, summary.left, summary.ended_by]))
sys.exit(summary.exit_code)
"""


ENDS = {
    "terminated": (signal.SIGTERM, 143, "cluster"),
    "killed": (signal.SIGKILL, -signal.SIGKILL, "cluster"),
    "ctrl-c": (signal.SIGINT, 130, "local"),
}


def test_a_coordinator_that_ends_leaves_no_process(cluster: Any, tmp_path: Path) -> None:
    """All start at once, for most of it is waiting for Ray; they end one after the other."""
    with ExitStack() as drivers:
        started = {
            name: drivers.enter_context(
                coordinator(tmp_path / name, cluster.address if where == "cluster" else where)
            )
            for name, (_, _, where) in ENDS.items()
        }
        for name, driver in started.items():
            check_end(driver, tmp_path / name, *ENDS[name])


@contextmanager
def coordinator(folder: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """Run one that comes to a unit that hangs; nothing of it is left behind, whatever it does."""
    folder.mkdir()
    paths = os.pathsep.join([str(Path(sweep_works.__file__).parent), *sys.path])
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, folder, address],
        env=os.environ | {"CLIPQ_TEST_OF": str(folder), "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield driver
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()


def check_end(
    driver: subprocess.Popen[str], folder: Path, number: signal.Signals, code: int, where: str
) -> None:
    log = folder / "log"
    assert soon(lambda: len(logged(log)) == 2, seconds=180), "the second unit hangs"
    if where == "local":
        os.killpg(driver.pid, number)  # as a terminal does
    else:
        driver.send_signal(number)
    said, _ = driver.communicate(timeout=30)
    assert driver.returncode == code
    if number != signal.SIGKILL:
        assert json.loads(said) == [1, 1, number.name]
    actors = {int(process) for process, *_ in logged(log)}
    assert soon(lambda: not any(Path(f"/proc/{one}").exists() for one in actors))
    mark = f"CLIPQ_TEST_OF={folder}"
    assert soon(lambda: not marked(mark)), "what was started for it ends with it"
    assert FolderStore(folder / "parts").ids() == {Unit("vit", "rtn:w8").id}


def marked(mark: str) -> list[str]:
    """Return the processes that inherited a variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_node_lost_costs_an_attempt_and_nothing_is_lost_or_doubled(
    cluster: Any, tmp_path: Path
) -> None:
    units, log = some(24), tmp_path / "log"
    store, lost = FolderStore(tmp_path / "parts"), list(cluster.worker_nodes)[:1]

    def seen(*_: object) -> None:
        if lost and len({process for process, *_ in logged(log)}) == 2:
            cluster.remove_node(lost.pop(), allow_graceful=False)

    summary = run_sweep(
        units,
        FakeWork(store.folder, seconds=0.3, log=log),
        store=store,
        executor=RayExecutor(address="auto"),
        folder=tmp_path,
        identity={"plan": "0a"},
        time_limit=LIMIT,
        progress=seen,
    )
    assert not lost, "both nodes had units when one was lost"
    assert (summary.done, summary.exit_code) == (24, 0)
    assert store.content() == quiet(tmp_path / "quiet", units)
    told = list(Attempts(tmp_path / "attempts").read())
    assert Counter(one.name for one in told if one.done) == Counter(map(str, units))
    failed = [one for one in told if not one.done]
    assert 1 <= len(failed) <= 2, failed
    assert all(one.ended and one.outside for one in failed), failed
    # What was begun again is what was lost, and that alone.
    begun = Counter(quantizer for *_, quantizer in logged(log))
    again = {f"vit/{name}" for name, times in begun.items() if times > 1}
    assert again <= {one.name for one in failed}


def test_a_cluster_that_is_lost_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        exceptions = SimpleNamespace(RayError=RuntimeError)

        def __getattr__(self, _: str) -> Any:
            raise ConnectionError("the client has disconnected")

    lost = Lost()
    vars(lost).update(is_initialized=lambda: True)
    monkeypatch.setattr(ray_engine, "import_ray", lambda: lost)
    with pytest.raises(SweepError) as told:
        list(RayExecutor().run(some(1), FakeWork(Path()), time_limit=LIMIT))
    assert told.value.problem == (
        "the Ray cluster is lost: ConnectionError: the client has disconnected"
    )
    assert "clipq sweep resume" in told.value.hint


@pytest.mark.parametrize("form", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "host:port", ""])
def test_a_wrong_address_is_refused_within_seconds(form: str) -> None:
    ray, start = SimpleNamespace(is_initialized=lambda: False), time.monotonic()
    with pytest.raises(SweepError, match=rf"nothing answers at '{form}'|'{form}' is no address"):
        joined(ray, form, None).__enter__()
    assert time.monotonic() - start < 10


def test_a_ray_that_is_missing_or_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match="needs the package ray") as missing:
        import_ray()
    assert "pytest-clipq[ray]" in missing.value.hint
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.9.3"))
    with pytest.raises(SweepError, match=r"ray 2\.9\.3 is older than 2\.60"):
        import_ray()
    newer = SimpleNamespace(__version__="2.100.0")
    monkeypatch.setitem(sys.modules, "ray", newer)
    assert import_ray() is newer


def test_other_versions_are_refused() -> None:
    check_versions(versions())
    for name in ("clipq", "code of clipq", "torch"):
        with pytest.raises(SweepError, match=f"other versions: {name} 0a there"):
            check_versions(versions() | {name: "0a"})


def test_what_ray_says_of_an_end_is_one_line_of_a_bearable_length() -> None:
    said = reason_of_end(RuntimeError("gone\n" + "x" * 1000 + "\nno module"))
    assert said.startswith("RuntimeError: gone xxx")
    assert said.endswith("xxx no module"), "where a traceback says what was wrong"
    assert len(said) < 450


@pytest.mark.parametrize(
    "wrong",
    [{"cpus_per_unit": 0}, {"gpus_per_unit": -1}, {"workers": 0}, {"patience": math.nan}],
    ids=str,
)
def test_impossible_resources_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SweepError, match=r"at least 1|more than 0 CPUs|0 or more seconds"):
        RayExecutor(**wrong)
