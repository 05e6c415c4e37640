import math

import pytest

from zss_d2.analysis.over_runs.statistics import correlation, mean_over_runs


def test_the_interval_of_a_mean():
    """Of 1, 2, 3: s = 1, t(0.975, 2) = 4.30265."""
    mean = mean_over_runs([1, 2, math.nan, 3])
    assert (mean.value, mean.runs) == (2, 3)
    assert mean.half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert mean.text(1) == "2.0 ± 2.5"


def test_one_run_has_no_interval_and_none_no_mean():
    assert mean_over_runs([0.25]).text(2) == "0.25"
    assert mean_over_runs([math.nan]).text(2) == "-"


def test_correlation_of_values_and_of_ranks():
    """1, 2, 3 against 1, 2, 9: covariance 8 / 2, deviations 1 and sqrt(38 / 2)."""
    found = correlation([1, 2, 3, 4], [1, 2, 9, math.nan])
    assert found.runs == 3
    assert found.spearman == pytest.approx(1)
    assert found.pearson == pytest.approx(4 / math.sqrt(19))
    assert correlation([1, 2, 3], [3, 2, 1]).pearson == pytest.approx(-1)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [3, 4]), ([1, 1, 1], [1, 2, 3]), ([], [])])
def test_too_few_runs_or_all_alike_have_none(a, b):
    found = correlation(a, b)
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)
    assert found.runs == len(a)
