"""What happens to machines: killed processes, full disks, damaged files, two in one folder.

A training that was cut off and resumed ends with the bits of one that was not.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import warnings
from contextlib import suppress

import pytest
import torch
from tiny_training import Contrast, Noised, TwoTowers, learnt, same, some_pairs, trained

from clipq.errors import TrainingError
from clipq.training.checkpoints import Checkpoints
from clipq.training.sealed_tensors import read_sealed, write_sealed

RECIPE = {"steps": 20, "every": 3, "accumulate": 2, "save_seconds": 0.0}


class Killed(BaseException):
    """Nothing that a program would catch."""


class DiesAfter:
    """An objective, images and a callback, one of whose calls is the last."""

    def __init__(self, calls: int, *, kill: bool = False) -> None:
        self.left, self.kill = calls, kill

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed

    def arguments(self):
        dies, pairs = self, some_pairs()

        class Mortal(Contrast):
            def loss(self, student, teacher, batch):
                dies.count()
                return super().loss(student, teacher, batch)

        Mortal.__module__, Mortal.__qualname__ = Contrast.__module__, Contrast.__qualname__
        images = pairs.images

        def load(rows):
            dies.count()
            return images(rows)

        object.__setattr__(pairs, "images", load)
        return {"objective": Mortal(), "pairs": pairs, "progress": lambda _: dies.count()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a training comes to that nothing happened to."""
    return trained(tmp_path_factory.mktemp("whole"), **RECIPE)


def test_a_training_that_dies_twenty_times_ends_with_the_same_bits(tmp_path, whole):
    places = random.Random(0)
    deaths = 0
    for _ in range(60):
        dies = DiesAfter(places.randint(4, 26) if deaths < 20 else 10**6)
        try:
            outcome = trained(
                tmp_path, **RECIPE | {"save_seconds": places.choice([0, 0.02])}, **dies.arguments()
            )
        except Killed:
            deaths += 1
        else:
            break
    assert deaths >= 5
    assert same(outcome, whole)


@pytest.mark.parametrize("step", range(1, 21))
def test_resumed_after_any_step_it_ends_with_the_same_bits(tmp_path, whole, step):
    """Cut off after each of the twenty steps: what is lost is what came after the checkpoint."""

    def stop(progress):
        if progress.step == step:
            raise Killed

    with suppress(Killed):
        trained(tmp_path, **RECIPE, progress=stop)
    taken = []
    outcome = trained(tmp_path, **RECIPE, progress=lambda each: taken.append(each.step))
    assert same(outcome, whole)
    assert outcome.resumed_from == step
    assert taken == list(range(step + 1, 21))


@pytest.fixture
def usual_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.parametrize(("times", "saved"), [(1, 8), (2, None)])
def test_ctrl_c_saves_the_step_that_it_came_in_and_a_second_one_ends_at_once(
    tmp_path, whole, usual_ctrl_c, times, saved
):
    def interrupt(progress):
        if progress.step == 7:  # which is done: the next one is the one that it comes in
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    recipe = RECIPE | {"save_seconds": 1e9}
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, **recipe, progress=interrupt)
    outcome = trained(tmp_path, **recipe)
    assert outcome.resumed_from == saved
    assert same(outcome, whole)


def in_a_process(work):
    """Run something in a copy of this process; return how it ended."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_leaves_what_another_goes_on_with(tmp_path, whole):
    for calls in (9, 4, 15):
        dies = DiesAfter(calls, kill=True).arguments()
        assert in_a_process(lambda dies=dies: trained(tmp_path, **RECIPE, **dies)) == signal.SIGKILL
    assert same(trained(tmp_path, **RECIPE), whole)
    assert not list(tmp_path.glob(".*.tmp"))


def cut_off(folder, after=7, **given):
    """Train a few steps of it."""

    def stop(progress):
        if progress.step == after:
            raise Killed

    with suppress(Killed):
        trained(folder, **RECIPE, progress=stop, **given)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


DAMAGES = {
    "flipped": _flip,
    "cut": _cut,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture(scope="module")
def seven_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seven")
    cut_off(folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_a_damaged_checkpoint_is_warned_of_and_the_one_before_it_used(
    tmp_path, whole, seven_steps, ending, damage
):
    folder = shutil.copytree(seven_steps, tmp_path / "copy")
    DAMAGES[damage](folder / f"step-00000007.{ending}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = trained(folder, **RECIPE)
    assert outcome.resumed_from == 6
    assert same(outcome, whole)
    said = [str(each.message) for each in caught]
    if (ending, damage) != ("json", "gone"):  # of which nothing says that it ever was
        assert any("the checkpoint of step 7 cannot be used" in text for text in said)


def test_where_no_checkpoint_is_whole_it_begins_anew(tmp_path, whole, seven_steps):
    folder = shutil.copytree(seven_steps, tmp_path / "copy")
    for path in folder.glob("best-*.safetensors"):
        _flip(path)
    with pytest.warns(UserWarning, match="cannot be used"):
        outcome = trained(folder, **RECIPE)
    assert outcome.resumed_from is None
    assert same(outcome, whole)


def test_two_checkpoints_are_kept_and_the_best_states_that_they_name(seven_steps):
    steps = sorted(path.stem for path in seven_steps.glob("step-*.json"))
    assert steps == ["step-00000006", "step-00000007"]
    named = {read_sealed(seven_steps / step)[0]["best_step"] for step in steps}
    kept = {int(path.stem.partition("-")[2]) for path in seven_steps.glob("best-*.safetensors")}
    assert kept == named


def test_a_finished_training_is_answered_without_a_step(tmp_path, whole):
    trained(tmp_path, **RECIPE)
    student = TwoTowers()
    outcome = trained(tmp_path, **RECIPE, student=student, progress=pytest.fail)
    assert same(outcome, whole)
    assert outcome.resumed_from == 20
    for name, parameter in {**learnt(student)["weights"], **learnt(student)["steps"]}.items():
        assert torch.equal(parameter, whole.parameters[name])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 0.02}, "recipe.lr was 0.01, is 0.02"),
        ({"steps": 30}, "recipe.steps was 20, is 30"),
        ({"objective": Noised()}, "objective was tiny_training.Contrast, is tiny_training.Noised"),
        ({"pairs": some_pairs(seed=1)}, "pairs was "),
        ({"identity": {"parent": "other", "code": 2}}, "code was absent, is 2; parent was tiny"),
        ({"weights": {}}, "parameters was "),
        ({"student": TwoTowers(width=5), "teacher": TwoTowers(width=5)}, "parameters was "),
    ],
)
def test_another_training_is_refused_and_the_difference_named(seven_steps, changed, said):
    before = sorted(path.name for path in seven_steps.iterdir())
    with pytest.raises(TrainingError, match="holds another training, of which 7 steps") as caught:
        trained(seven_steps, **RECIPE | changed)
    assert said in caught.value.problem
    assert sorted(path.name for path in seven_steps.iterdir()) == before


def test_two_do_not_train_in_one_folder(tmp_path):
    with (
        Checkpoints(tmp_path).locked(),
        pytest.raises(TrainingError, match=f"another process trains in {tmp_path}"),
    ):
        trained(tmp_path)
    assert trained(tmp_path).steps_done == 12


@pytest.fixture
def small_files(request):
    """Files of so many bytes at most, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(count):
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_it_and_leaves_the_checkpoint_before(tmp_path, whole, small_files):
    def fill(progress):
        if progress.step == 5:
            small_files(2_000)

    with pytest.raises(TrainingError) as caught:
        trained(tmp_path, **RECIPE, progress=fill)
    small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert "the state of step 6 cannot be saved" in caught.value.problem
    assert f"the last good checkpoint, of step 5, is in {tmp_path}" in caught.value.problem
    assert "free space" in caught.value.hint
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    assert not list(tmp_path.glob("*-00000006*"))
    outcome = trained(tmp_path, **RECIPE)
    assert outcome.resumed_from == 5
    assert same(outcome, whole)


def test_tensors_without_their_facts_are_nothing(tmp_path):
    write_sealed(tmp_path / "a", {"x": torch.arange(3)}, {"n": 0.1})
    facts, tensors = read_sealed(tmp_path / "a")
    assert (facts, tensors["x"].tolist()) == ({"n": 0.1}, [0, 1, 2])
    (tmp_path / "a.json").unlink()
    with pytest.raises(TrainingError):
        read_sealed(tmp_path / "a")
