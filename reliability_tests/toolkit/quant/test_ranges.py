"""Range estimators against numpy, brute force and a slow transcription."""

from __future__ import annotations

import numpy as np
import papers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipq.errors import QuantizerError
from clipq.quant.formats import ActivationFormat
from clipq.quant.grids import choose_grid
from clipq.quant.options import _RANGES
from clipq.quant.ranges import (
    RANGES,
    Ema,
    Entropy,
    Histogram,
    Mse,
    Percentile,
    range_estimator,
)
from clipq.quant.ranges.entropy import divergence

A8 = ActivationFormat(8)
A4 = ActivationFormat(4)


def stream(seed: int = 0, batches: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    heavy = [torch.randn(4, 100, generator=generator) ** 3 for _ in range(batches)]
    return [batch * (1 + i) for i, batch in enumerate(heavy)]


def fed(estimator, batches):
    for batch in batches:
        estimator.see(batch)
    return estimator


def test_the_option_offers_every_estimator():
    assert sorted(_RANGES) == sorted(RANGES)


def test_minmax_is_the_whole_range():
    batches = stream()
    whole = torch.cat(batches)
    assert fed(range_estimator("minmax", A8), batches).range() == (
        float(whole.min()),
        float(whole.max()),
    )


def test_ema_follows_its_recursion():
    batches = stream()
    low, high = float(batches[0].min()), float(batches[0].max())
    for batch in batches[1:]:
        low = 0.9 * low + 0.1 * float(batch.min())
        high = 0.9 * high + 0.1 * float(batch.max())
    assert fed(Ema(), batches).range() == pytest.approx((low, high))


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1), min_size=1, max_size=6))
def test_histograms_count_everything_wherever_it_falls(batches):
    found = fed(Histogram(bins=64), [torch.tensor(batch) for batch in batches])
    everything = np.array([x for batch in batches for x in batch])
    assert found.counts.sum() == len(everything)
    assert (found.low, found.high) == (everything.min(), everything.max())
    # Each bin's count is that of its own interval, up to values on an edge.
    width = float(found.centres()[1] - found.centres()[0])
    for centre, count in zip(found.centres().tolist(), found.counts.tolist(), strict=True):
        slack = 1e-6 * max(1.0, abs(centre), width)
        inner = (everything > centre - width / 2 + slack) & (
            everything < centre + width / 2 - slack
        )
        outer = (everything >= centre - width / 2 - slack) & (
            everything <= centre + width / 2 + slack
        )
        assert inner.sum() <= count <= outer.sum()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_percentiles_are_numpy_s_to_a_bin(share):
    batches = stream(batches=20)
    whole = torch.cat(batches).numpy()
    low, high = fed(Percentile(share), batches).range()
    tail = (1 - share) / 2
    width = float(whole.max() - whole.min()) / 1024
    assert [low, high] == pytest.approx(np.quantile(whole, [tail, 1 - tail]), abs=2 * width)
    reach = fed(Percentile(share, symmetric=True), batches).range()
    assert reach[1] == -reach[0] == pytest.approx(np.quantile(np.abs(whole), share), abs=2 * width)


@pytest.mark.parametrize("number_format", [A4, A8, ActivationFormat(4, asymmetric=True)])
def test_mse_finds_the_best_of_a_hundred_ranges(number_format):
    batches = stream()
    whole = torch.cat(batches).flatten()

    def error(low, high):
        grid = choose_grid(torch.tensor(low), torch.tensor(high), number_format)
        return float((grid.snap(whole) - whole).double().square().mean())

    found = error(*fed(Mse(number_format), batches).range())
    full = float(whole.min()), float(whole.max())
    tried = [error(full[0] * s / 100, full[1] * s / 100) for s in range(1, 101)]
    assert found <= 1.02 * min(tried)  # its own errors are those of bin centres
    assert found <= error(*full)


def test_entropy_takes_the_smallest_divergence():
    counts = torch.histc(torch.cat(stream()).abs(), 256).double()
    for size in range(8, 257, 8):
        expected = papers.divergence(counts, size, 8)
        assert divergence(counts, size, 8) == pytest.approx(expected, rel=1e-9)
    estimator = fed(Entropy(A4), stream())
    low, high = estimator.range()
    assert 0 < high < float(torch.cat(stream()).max())
    assert low < 0


@pytest.mark.parametrize("name", sorted(RANGES))
class TestEveryEstimator:
    def test_a_constant_is_a_range_that_holds_it(self, name):
        low, high = fed(range_estimator(name, A8), [torch.full((3, 4), 2.5)] * 2).range()
        assert min(low, 0.0) <= 0.0
        assert max(high, -low) == pytest.approx(2.5, rel=0.01)

    def test_zeros_are_an_empty_range(self, name):
        low, high = fed(range_estimator(name, A8), [torch.zeros(3, 4)]).range()
        assert abs(low) <= 1e-6
        assert abs(high) <= 1e-6

    def test_an_outlier_of_1e30_gives_a_finite_range(self, name):
        batch = torch.randn(3, 40)
        batch[0, 0] = 1e30
        low, high = fed(range_estimator(name, A8), [torch.randn(3, 40), batch]).range()
        assert -float("inf") < low <= high <= 1.001e30

    def test_bfloat16_is_taken(self, name):
        low, high = fed(range_estimator(name, A8), [torch.randn(3, 40).bfloat16()]).range()
        assert low < high


def test_unknown_and_impossible_estimators_are_refused():
    with pytest.raises(QuantizerError, match="'minmx' is unknown"):
        range_estimator("minmx", A8)
    with pytest.raises(QuantizerError, match="cannot serve ae4m3"):
        range_estimator("entropy", ActivationFormat(8, number="e4m3"))
