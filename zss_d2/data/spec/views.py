"""Views of a data set: the same images and masks with other unseen classes.

Either simply with others (`split_anew`), such as the 2 to 10 unseen classes of ZS3, or for choosing
settings (`hold_out`). A setting that is chosen by the scores of the unseen classes has looked at
what is then reported. So in such a view the unseen classes of the data set are void everywhere, in
training and in tests, and some of its seen classes are unseen in their place. Several views with
different classes (folds) say whether a choice hangs on which ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from zss_d2.data.files.listing import Location
from zss_d2.data.spec.benchmark import Benchmark, identity


def split_anew(base: Benchmark, unseen: Collection[str]) -> Benchmark:
    """Return ``base`` with ``unseen``, some of its classes, as the unseen ones; ids stay."""
    ids = tuple(i for i, name in enumerate(base.classes) if name in unseen)
    return dataclasses.replace(base, unseen_ids=ids)


def hold_out(base: Benchmark, unseen: Collection[str]) -> Benchmark:
    """Return ``base`` without its unseen classes, which become void, and with ``unseen`` unseen.

    The order of the seen classes stays, and with it the ids do not depend on which are held out.
    ``raw_to_train`` is for the same masks as that of ``base``; other encodings are left out.

    Args:
        unseen: seen classes of ``base``, not all of them.
    """
    classes = base.seen_names
    return dataclasses.replace(
        base,
        classes=classes,
        synonyms={name: words for name, words in base.synonyms.items() if name in classes},
        unseen_ids=tuple(i for i, name in enumerate(classes) if name in unseen),
        raw_to_train=_close_up(base, base.raw_to_train),
        things=tuple(name for name in base.things if name in classes),
        colors={name: rgb for name, rgb in base.colors.items() if name in classes},
        encodings={},
    )


def without_unseen(base: Benchmark, location: Location) -> Location:
    """Return the location of a split of ``base`` with what its masks hold in `hold_out`'s ids."""
    held = location.raw_to_train or identity(base.classes, base.ignore_label)
    return dataclasses.replace(location, raw_to_train=_close_up(base, held))


def _close_up(base: Benchmark, raw_to_train: Mapping[int, int]) -> dict[int, int]:
    """Make the unseen classes void, and give the seen ones consecutive ids."""
    ids = {base.ignore_label: base.ignore_label} | dict.fromkeys(base.unseen_ids, base.ignore_label)
    ids |= {old: new for new, old in enumerate(base.seen_ids)}
    return {raw: ids[train] for raw, train in raw_to_train.items()}
