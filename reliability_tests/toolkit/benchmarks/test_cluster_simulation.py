"""The simulated cluster, by cases that are worked out by hand."""

from __future__ import annotations

import pytest
from cluster_simulation import Cluster, Job, simulate


def cluster(**given) -> Cluster:
    return Cluster(**{"nodes": 1, "actors": 2, "ahead": 32} | given)


def test_an_actor_keeps_its_model_and_takes_another_that_nobody_has():
    jobs = [Job("a", encode_s=3.0)] * 2 + [Job("b", encode_s=2.0)] * 3
    done = simulate(jobs, cluster())
    assert (done.seconds, done.loads, done.units) == (6.0, 2, 5)


def test_who_reads_one_unit_ahead_sees_no_other_model():
    jobs = [Job("a", encode_s=3.0)] * 2 + [Job("b", encode_s=2.0)] * 3
    done = simulate(jobs, cluster(ahead=1))
    # Both do an "a" until 3, both load "b" and do one until 5, and one of them the last until 7.
    assert (done.seconds, done.loads) == (7.0, 4)


@pytest.mark.parametrize(("once", "seconds", "traffic"), [(True, 12.0, 100), (False, 22.0, 200)])
def test_images_are_fetched_once_for_a_node_and_the_link_serves_one_after_the_other(
    once, seconds, traffic
):
    job = Job("a", images="x", image_bytes=100.0, decode_s=4.0, verify_s=1.0, encode_s=1.0)
    done = simulate([job] * 2, cluster(link_bytes_per_s=10.0, once_per_node=once))
    assert done.seconds == seconds
    assert done.traffic["images"] == traffic


def test_decoding_goes_on_beside_the_transfer_and_whichever_is_longer_counts():
    job = Job("a", images="x", image_bytes=100.0, decode_s=40.0, verify_s=1.0, encode_s=1.0)
    done = simulate([job] * 4, cluster(link_bytes_per_s=10.0))
    assert done.seconds == 43.0  # checked once by each actor, before its first unit
    assert done.actor_s["images"] == 2 * 41.0


def test_the_coordinator_serves_one_actor_after_the_other():
    done = simulate([Job("a", encode_s=5.0)] * 3, cluster(coordinator_s=1.0))
    assert done.seconds == 12.0  # 1 + 5, and again; the other's unit ends at 7
    assert done.coordinator_busy_s == 3.0
    assert done.actor_s["coordinator"] == 1.0 + 2.0 + 1.0


def test_shares_of_the_actors_time_come_to_all_of_it():
    jobs = [Job("a", prepare_s=1.0, encode_s=2.0, judge_s=0.5, part_bytes=30.0)] * 3
    done = simulate(jobs, cluster(start_s=1.0, commit_s=0.25, link_bytes_per_s=60.0))
    # One actor does two: 1 + 2 x (3.5 + 0.25), and parts that take half a second each; of the first
    # two, which end together, one waits for the other's.
    assert done.seconds == 1.0 + 3.5 + 0.5 + 0.25 + 3.5 + 0.5 + 0.25
    assert sum(done.shares.values()) == pytest.approx(1.0)
    assert done.shares["idle"] == pytest.approx((done.seconds - 1.0 - 3.5 - 1.0 - 0.25) / 19.0)
