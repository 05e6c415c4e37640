import numpy as np
import pytest

from zss_d2.errors import ZssError
from zss_d2.evaluation.bootstrap import METRICS, bootstrap, compare, contributions
from zss_d2.evaluation.counts import (
    ImageCounts,
    StoredCounts,
    read_counts,
    sparse,
    write_counts,
)
from zss_d2.evaluation.metrics import summarise

NAMES = ("a", "b", "u", "never")


def stored(matrices, unseen=("u",), keys=None) -> StoredCounts:
    keys = keys or [f"{index:02}" for index in range(len(matrices))]
    entries = [sparse(key, matrix) for key, matrix in zip(keys, matrices, strict=True)]
    return StoredCounts(
        np.sum(matrices, axis=0), NAMES, tuple(unseen), ImageCounts.join(entries, len(NAMES))
    )


@pytest.fixture
def matrices() -> list[np.ndarray]:
    """Twenty images; "never" is predicted here and there, but never true."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 50, (4, 4)) * (rng.random((4, 4)) < 0.5) for _ in range(20)]
    for image in images:
        image += 30 * np.eye(4, dtype=int)
        image[:, 3] = 0
    return images


def test_totals_are_weighted_sums(matrices):
    counts = stored(matrices).images
    weights = np.arange(20)
    expected = sum(weight * matrix for weight, matrix in zip(weights, matrices, strict=True))
    assert (counts.total(weights) == expected).all()
    right, true, predicted = counts.per_class()
    for index, matrix in enumerate(matrices):
        assert (right[index] == np.diag(matrix)).all()
        assert (true[index] == matrix.sum(axis=0)).all()
        assert (predicted[index] == matrix.sum(axis=1)).all()


def test_intervals_hold_the_value_and_depend_on_the_seed_alone(matrices):
    counts = stored(matrices)
    first = bootstrap(counts, resamples=200, seed=1)
    expected = summarise(counts.confusion, NAMES, ["u"])
    assert tuple(first) == METRICS
    for name, interval in first.items():
        assert interval.value == expected[name]
        assert interval.low < interval.value < interval.high
    assert bootstrap(counts, resamples=200, seed=1) == first
    assert bootstrap(counts, resamples=200, seed=2) != first
    wider = bootstrap(counts, resamples=200, seed=1, level=0.99)
    assert wider["mIoU"].low < first["mIoU"].low


def test_the_width_is_that_of_the_theory():
    """pAcc of images that are right or wrong as a whole: the interval of a binomial share."""
    right, wrong = np.zeros((4, 4), int), np.zeros((4, 4), int)
    right[0, 0] = wrong[1, 0] = 10
    interval = bootstrap(stored([right] * 70 + [wrong] * 30), resamples=3000)["pAcc"]
    half = 100 * 1.96 * np.sqrt(0.7 * 0.3 / 100)
    assert interval.value == 70
    assert interval.high - interval.value == pytest.approx(half, rel=0.15)
    assert interval.value - interval.low == pytest.approx(half, rel=0.15)


def test_equal_images_leave_no_doubt_and_an_undefined_metric_stays_so(matrices):
    interval = bootstrap(stored([matrices[0]] * 5), resamples=20)["mIoU"]
    assert interval.low == interval.high == interval.value
    assert np.isnan(bootstrap(stored(matrices, unseen=()), resamples=20)["hIoU"].low)


def test_a_paired_comparison_is_sharper_than_two_intervals(matrices):
    better = [matrix + np.diag([3, 3, 3, 0]) for matrix in matrices]
    first, second = stored(matrices), stored(better)
    paired = compare(first, second, resamples=200)
    alone = bootstrap(first, resamples=200)
    for name in METRICS:
        assert 0 < paired[name].low < paired[name].value < paired[name].high
        assert paired[name].high - paired[name].low < alone[name].high - alone[name].low
    same = compare(first, first, resamples=20)["hIoU"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_what_cannot_be_compared_is_an_error(matrices):
    keys = [f"other{index}" for index in range(20)]
    with pytest.raises(ZssError, match="other images .0 in common of 20 and 20"):
        compare(stored(matrices), stored(matrices, keys=keys))
    with pytest.raises(ZssError, match="unseen"):
        compare(stored(matrices), stored(matrices, unseen=("b",)))
    without = StoredCounts(np.eye(4, dtype=int), NAMES, ("u",))
    with pytest.raises(ZssError, match="TEST.PER_IMAGE"):
        bootstrap(without)


def test_contributions_are_what_is_missing_without_the_image(matrices):
    counts = stored(matrices)
    whole = summarise(counts.confusion, NAMES, ["u"])["hIoU"]
    expected = [
        whole - summarise(counts.confusion - matrix, NAMES, ["u"])["hIoU"] for matrix in matrices
    ]
    np.testing.assert_allclose(contributions(counts), expected, atol=1e-9)


@pytest.mark.parametrize("with_images", [True, False])
def test_counts_survive_the_file(matrices, tmp_path, with_images):
    counts = stored(matrices)
    if not with_images:
        counts = StoredCounts(counts.confusion, counts.class_names, counts.unseen_names)
    write_counts(tmp_path / "counts.npz", counts)
    again = read_counts(tmp_path / "counts.npz")
    assert (again.confusion == counts.confusion).all()
    assert (again.class_names, again.unseen_names) == (counts.class_names, counts.unseen_names)
    assert (again.images is not None) == with_images
    if with_images:
        assert bootstrap(again, resamples=5) == bootstrap(counts, resamples=5)
    assert [path.name for path in tmp_path.iterdir()] == ["counts.npz"]


def test_damaged_counts_are_named(tmp_path):
    path = tmp_path / "counts.npz"
    with pytest.raises(ZssError, match="counts.npz is missing; evaluate the run again"):
        read_counts(path)
    for content in (b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ZssError, match="counts.npz cannot be read"):
            read_counts(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ZssError, match="counts.npz cannot be read"):
        read_counts(path)
