"""Units that an engine read ahead: whose turn it is, and that none is begun after the end."""

from __future__ import annotations

from clipq.sweep.executor import Coming
from clipq.sweep.unit_queue import UnitQueue
from clipq.sweep.units import Unit


def some(*models: str) -> list[Unit]:
    return [Unit(model, f"rtn:w{i}") for i, model in enumerate(models, 2)]


def test_a_loaded_model_comes_first_then_one_that_nobody_has_then_the_order() -> None:
    units = some("b", "c", "a", "c", "b")
    queue = UnitQueue(units)
    assert queue.read(9) == 5
    taken = [queue.take("a", {"b"}) for _ in range(6)]
    assert taken == [*(units[i] for i in (2, 1, 3, 0, 4)), None]


def test_no_more_is_read_than_was_asked_for() -> None:
    units = iter(some(*"abcd"))
    queue = UnitQueue(units)
    assert [queue.read(2), queue.read(2)] == [2, 2]
    assert [unit.model for unit in units] == ["c", "d"]
    assert queue.read(5) == 2


def test_what_was_read_ahead_is_dropped_once_it_is_over() -> None:
    over: list[bool] = []
    queue = UnitQueue(Coming(iter(some("a", "b", "c")), over=lambda: bool(over)))
    assert queue.read(3) == 3
    over.append(True)
    assert queue.read(3) == 0
    assert queue.take("a", ()) is None
