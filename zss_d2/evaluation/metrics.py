"""Segmentation metrics as functions of one joint confusion matrix over all classes.

The matrix counts pixels: ``confusion[p, g]`` have prediction p and ground truth g; ignored pixels
are in no cell. Results are fractions; NaN means undefined. A class without ground truth has neither
IoU nor accuracy and is left out of every mean (as in Detectron2), also if it is predicted
somewhere; those predictions still count as errors of the classes they stand on.

mmsegmentation, zsseg and ZegFormer give such a predicted class IoU 0 instead, which lowers their
means: `with_absent_as_zero`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from zss_d2.utils.transfer import sent

# Ends the names of the means in which a predicted class that the truth lacks has IoU 0.
ABSENT_AS_ZERO = "-absent0"


def confusion_matrix(
    prediction: Tensor, truth: Tensor, num_classes: int, ignore_label: int
) -> Tensor:
    """Count pixels of two integer label maps of equal shape -> (K, K) int64, rows predictions.

    On CUDA the counting happens where the prediction is, and nobody waits for it there; otherwise
    it does on the CPU. Predictions lie in 0..K-1.

    Raises:
        ValueError: other shapes, or labels outside 0..K-1 that are not the ignore label.
    """
    # The truth comes from a file, so it is in CPU memory.
    columns = truth_columns(truth.cpu().numpy(), num_classes, ignore_label)
    return count_pairs(prediction, columns, num_classes, ignore_label)


def truth_columns(truth: np.ndarray, num_classes: int, ignore_label: int) -> np.ndarray:
    """Labels as columns of a confusion matrix with one more for what is ignored, K.

    NumPy is used because torch's threads, which loader workers compete with, cost more than they
    save on one image.

    Args:
        truth: integers of any shape.

    Returns:
        the same shape, in 8 bit if K fits and in 32 otherwise.

    Raises:
        ValueError: labels outside 0..K-1 that are not the ignore label.
    """
    labels = truth.astype(np.int32)
    if labels.size:
        _check_labels(labels, num_classes, ignore_label)
    return np.minimum(labels, num_classes).astype(np.uint8 if num_classes < 256 else np.int32)


def count_pairs(
    prediction: Tensor, columns: np.ndarray, num_classes: int, ignore_label: int
) -> Tensor:
    """`confusion_matrix` of a prediction and what `truth_columns` gives.

    Raises:
        ValueError: other shapes.
    """
    if tuple(prediction.shape) != columns.shape:
        raise ValueError(
            f"the prediction is {tuple(prediction.shape)}, the ground truth {columns.shape}"
        )
    # Counting what is ignored is faster than leaving pixels out.
    width = num_classes + 1
    # Whether MPS adds up integers of 64 bit depends on torch's version.
    if prediction.device.type != "cuda":
        pairs = prediction.cpu().numpy().astype(np.int32) * np.int32(width) + columns
        counts = torch.from_numpy(np.bincount(pairs.ravel(), minlength=num_classes * width))
    else:
        # From memory that stays where it is until the transfer is over.
        on_device = sent(torch.from_numpy(columns).pin_memory(), prediction.device)
        counts = count_values(prediction.int() * width + on_device, num_classes * width)
    counts = counts.view(num_classes, width)[:, :num_classes]
    if ignore_label < num_classes:
        counts[:, ignore_label] = 0
    return counts


def count_values(values: Tensor, size: int) -> Tensor:
    """How often each of 0..size-1 occurs in integers of any shape -> (size,) int64.

    ``torch.bincount`` does it too, but looks for the largest value first, and has the CPU wait.
    """
    flat = values.reshape(-1).long()
    counts = torch.zeros(size, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))


def _check_labels(truth: np.ndarray, num_classes: int, ignore_label: int) -> None:
    low, high = int(truth.min()), int(truth.max())
    if low < 0:
        illegal = low
    elif high > max(ignore_label, num_classes - 1):
        illegal = high
    else:
        present = np.bincount(truth.ravel(), minlength=ignore_label + 1)
        present[:num_classes] = present[ignore_label] = 0
        if not present.any():
            return
        illegal = int(present.argmax())
    raise ValueError(f"the ground truth holds label {illegal} outside 0..{num_classes - 1}")


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union per class (K,); NaN where the truth lacks the class."""
    hit, truth = np.diag(confusion), confusion.sum(axis=0)
    union = truth + confusion.sum(axis=1) - hit
    return _divide(hit, np.where(truth > 0, union, 0))


def with_absent_as_zero(iou: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """`class_iou` (K,) by the other rule: 0 for a class that is predicted but not in the truth.

    A class that is neither remains NaN. Source: mmsegmentation's ``mean_iou`` divides by the union
    and averages over all that is not NaN.
    """
    return np.where(np.isnan(iou) & (confusion.sum(axis=1) > 0), 0.0, iou)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of each class's pixels that are found (K,); NaN where the truth lacks the class."""
    return _divide(np.diag(confusion), confusion.sum(axis=0))


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of all pixels that are right; NaN without pixels."""
    return float(_divide(np.trace(confusion), confusion.sum()))


def mean_over_present(values: np.ndarray, ids: Sequence[int]) -> float:
    """Mean of per-class ``values`` (K,) over the ``ids`` that are not NaN; NaN if none is."""
    present = values[ids][~np.isnan(values[ids])]
    return float(present.mean()) if present.size else float("nan")


def frequency_weighted_iou(confusion: np.ndarray) -> float:
    """IoU weighted by the share of ground-truth pixels; NaN without pixels."""
    frequency = _divide(confusion.sum(axis=0), confusion.sum())
    present = confusion.sum(axis=0) > 0
    return (
        float((frequency * class_iou(confusion))[present].sum()) if present.any() else float("nan")
    )


def share_given_to(confusion: np.ndarray, truth: Sequence[int], others: Sequence[int]) -> float:
    """Share of the pixels of the classes ``truth`` that are labelled as one of ``others``."""
    pixels = confusion[:, truth]
    return float(_divide(pixels[others].sum(), pixels.sum()))


def harmonic_mean(seen: float, unseen: float) -> float:
    """hIoU = 2 S U / (S + U); 0 if either is 0, NaN if either is NaN."""
    if seen + unseen == 0:
        return 0.0
    return 2 * seen * unseen / (seen + unseen)


def summarise(
    confusion: np.ndarray,
    class_names: Sequence[str],
    unseen_names: Sequence[str],
    thing_names: Sequence[str] = (),
) -> dict[str, float]:
    """All metrics in percent.

    Keys: those of Detectron2's ``SemSegEvaluator`` (mIoU, fwIoU, mACC, pACC, IoU-<class>,
    ACC-<class>) and pAcc (= pACC), mIoU-S, mIoU-U, hIoU, mACC-S, mACC-U, unseen-as-seen and
    seen-as-unseen (shares of the labelled pixels of one group that are given to the other); where
    ``thing_names`` says which classes are things, also mIoU- and mACC-U-things and -U-stuff.
    mIoU, mIoU-S, mIoU-U and hIoU also come with the suffix `ABSENT_AS_ZERO`, by the rule of
    `with_absent_as_zero`.
    """
    iou, accuracy = class_iou(confusion), class_accuracy(confusion)
    everything = list(range(len(class_names)))
    unseen = [i for i in everything if class_names[i] in unseen_names]
    seen = [i for i in everything if i not in unseen]
    groups = {"S": seen, "U": unseen}
    if thing_names:
        groups["U-things"] = [i for i in unseen if class_names[i] in thing_names]
        groups["U-stuff"] = [i for i in unseen if class_names[i] not in thing_names]
    miou = {group: mean_over_present(iou, ids) for group, ids in groups.items()}
    metrics = {
        "pAcc": pixel_accuracy(confusion),
        "mIoU": mean_over_present(iou, everything),
        **{f"mIoU-{group}": value for group, value in miou.items()},
        "hIoU": harmonic_mean(miou["S"], miou["U"]),
        "fwIoU": frequency_weighted_iou(confusion),
        "mACC": mean_over_present(accuracy, everything),
        "pACC": pixel_accuracy(confusion),
        "unseen-as-seen": share_given_to(confusion, unseen, seen),
        "seen-as-unseen": share_given_to(confusion, seen, unseen),
    }
    metrics |= _absent_as_zero(confusion, seen, unseen)
    metrics |= {f"mACC-{group}": mean_over_present(accuracy, ids) for group, ids in groups.items()}
    metrics |= {f"IoU-{name}": float(iou[i]) for i, name in enumerate(class_names)}
    metrics |= {f"ACC-{name}": float(accuracy[i]) for i, name in enumerate(class_names)}
    return {key: 100 * value for key, value in metrics.items()}


def absent_as_zero_note(metrics: Mapping[str, float], digits: int = 2) -> str:
    """A sentence with the means by the rule of `with_absent_as_zero`; empty if it changes none."""
    ends = len(ABSENT_AS_ZERO)
    other = {key[:-ends]: value for key, value in metrics.items() if key.endswith(ABSENT_AS_ZERO)}
    plain = [metrics[name] for name in other]
    if np.array_equal(plain, list(other.values()), equal_nan=True):
        return ""
    values = ", ".join(f"{k} {value:.{digits}f}" for k, value in other.items() if value == value)
    return (
        "Classes that are predicted but not in the ground truth counted as IoU 0, as "
        f"mmsegmentation, zsseg and ZegFormer do: {values}."
    )


def _absent_as_zero(
    confusion: np.ndarray, seen: Sequence[int], unseen: Sequence[int]
) -> dict[str, float]:
    iou = with_absent_as_zero(class_iou(confusion), confusion)
    groups = {"mIoU": range(len(iou)), "mIoU-S": seen, "mIoU-U": unseen}
    means = {name: mean_over_present(iou, ids) for name, ids in groups.items()}
    means["hIoU"] = harmonic_mean(means["mIoU-S"], means["mIoU-U"])
    return {f"{name}{ABSENT_AS_ZERO}": value for name, value in means.items()}


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0
    )
