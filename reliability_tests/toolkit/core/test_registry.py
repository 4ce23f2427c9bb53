"""One door for every extension: named once, loaded late, missed helpfully."""

import pytest

from clipq.errors import ClipqError, UnknownNameError
from clipq.registry import Registry


@pytest.fixture
def registry():
    return Registry("fruit", group="clipq.test_fruits")


def test_a_decorated_object_is_found_with_its_attributes(registry):
    @registry.register("apple", version=3)
    def apple():
        return "apple"

    assert registry.get("apple") is apple
    assert apple.version == 3
    assert registry.names() == ["apple"]


def test_a_duplicate_name_is_an_error(registry):
    registry.add("apple", lambda: 1)
    with pytest.raises(ClipqError, match="'apple' is already registered"):
        registry.add("apple", lambda: 2)


def test_an_unknown_name_says_what_was_meant(registry):
    registry.add("apple", 1)
    with pytest.raises(UnknownNameError, match="did you mean 'apple'"):
        registry.get("aple")


def test_names_are_sorted_and_a_lazy_target_is_imported_only_when_asked_for(registry):
    registry.register_lazy("zebra", "no.such.module:thing")
    registry.register_lazy("maths", "math:tau")
    assert registry.names() == ["maths", "zebra"]
    assert registry.get("maths") == pytest.approx(6.283185307)
    with pytest.raises(ModuleNotFoundError):
        registry.get("zebra")


def test_errors_survive_a_process_boundary_with_their_hint():
    import pickle

    error = pickle.loads(pickle.dumps(UnknownNameError("no 'x'", hint="use 'y'")))
    assert type(error) is UnknownNameError
    assert str(error) == "no 'x'\n  fix: use 'y'"
