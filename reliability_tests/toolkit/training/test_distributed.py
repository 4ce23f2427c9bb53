"""Two processes come to what one does, save by rounding, copied (DDP) or sharded (FSDP2)."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import time
import traceback

import pytest
import torch
from tiny_training import Contrast, Noised, trained

from clipq.errors import TrainingError
from clipq.training.checkpoints import Checkpoints

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not torch.distributed.is_gloo_available(),
    reason="needs fork and gloo",
)


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def in_two_processes(folder, *, train=trained, **given):
    """Train in two processes, as torchrun starts them; return what each came to, or its error."""
    port, children = free_port(), []
    for rank in (0, 1):
        child = os.fork()
        if child == 0:
            os.environ.update(
                RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
            )
            try:
                try:
                    result = train(folder, **given)
                except TrainingError as error:
                    result = error
                (folder.parent / f"{rank}.pickle").write_bytes(pickle.dumps(result))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    return [pickle.loads((folder.parent / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]


def assert_near(found, wanted):
    assert found.best_step == wanted.best_step
    for mine, theirs in zip(found.looks, wanted.looks, strict=True):
        assert mine.total == pytest.approx(theirs.total, rel=1e-5)
    for name, parameter in wanted.parameters.items():
        torch.testing.assert_close(found.parameters[name], parameter, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "given",
    [
        {"objective": Noised(), "batch": 9, "accumulate": 2},
        {"objective": Contrast(), "batch": 9, "accumulate": 2, "sharded": True},
    ],
    ids=["ddp", "fsdp2"],
)
def test_two_processes_come_to_what_one_does(tmp_path, given, monkeypatch):
    """Nine pairs are not divided evenly by two, nor five by two.

    The first may remove the folder as soon as it is done: the second, slow to read, has read it.
    """
    best = Checkpoints.best

    def read(checkpoints, step):
        time.sleep(0.3 * int(os.environ.get("RANK", "0")))
        return best(checkpoints, step)

    def trained_and_removed(folder, **given):
        outcome = trained(folder, **given)
        if os.environ["RANK"] == "0":
            shutil.rmtree(folder)
        return outcome

    monkeypatch.setattr(Checkpoints, "best", read)
    alone = {name: each for name, each in given.items() if name != "sharded"}
    one = trained(tmp_path / "one", **alone)
    for found in in_two_processes(tmp_path / "two", train=trained_and_removed, **given):
        assert_near(found, one)


def test_what_two_processes_began_one_ends(tmp_path):
    given = {"save_seconds": 0.0, "collapsed": _StopsAfter(6)}
    errors = in_two_processes(tmp_path / "two", **given)
    assert all("after 6 steps" in str(error) for error in errors)
    outcome = trained(tmp_path / "two")
    assert outcome.resumed_from == 5
    assert_near(outcome, trained(tmp_path / "one"))


class _StopsAfter:
    """Says after some calls that a step collapsed."""

    def __init__(self, calls):
        self.left = calls + 1

    def __call__(self):
        self.left -= 1
        return ["a step"] if self.left == 0 else []


def test_an_error_of_the_first_process_is_everyones(tmp_path):
    trained(tmp_path / "two")
    errors = in_two_processes(tmp_path / "two", lr=0.5)
    assert all("holds another training" in str(error) for error in errors)
