"""What a run needs of its data sets, found before it starts: they are known and prepared."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from zss_d2.data.files.images import require_folder
from zss_d2.data.files.listing import Location, load_records
from zss_d2.data.files.predictions import require_ground_truth
from zss_d2.data.spec.registry import location_of
from zss_d2.data.spec.schema import closest
from zss_d2.data.spec.vocabulary import Vocabulary, require_distinct_tests
from zss_d2.errors import ZssError


def require_known(cfg: CfgNode) -> None:
    """Raise `ZssError` unless all data sets of the config are registered, each test set once.

    Also where ``TEST.BACKGROUND_BELOW`` is set and a test set has no class for it.
    """
    for key, names in _by_key(cfg).items():
        for name in names:
            try:
                Vocabulary.registered(name)
            except ZssError as error:
                raise ZssError(f"{key}: {error}") from None
    require_distinct_tests(cfg.DATASETS.TEST)
    for name in cfg.DATASETS.TEST if cfg.TEST.BACKGROUND_BELOW else ():
        if "background" not in MetadataCatalog.get(name).stuff_classes:
            raise ZssError(
                f"TEST.BACKGROUND_BELOW is {cfg.TEST.BACKGROUND_BELOW}, but {name} has no class "
                "'background'; leave it out"
            )


def require_datasets(cfg: CfgNode, train: bool) -> None:
    """Raise `ZssError` unless the data sets that a run reads are known and prepared.

    Of training sets the folders are looked for, which are listed before the first iteration anyway;
    of test sets, which are read for the first time after hours, all files. No file is opened.

    Args:
        train: whether it trains, and not only tests.
    """
    require_known(cfg)
    datasets = cfg.DATASETS
    if not datasets.TRAIN:
        raise ZssError(
            "DATASETS.TRAIN is empty; name a data set, such as zss_voc_train: the model takes its "
            "classes from there, also for a test"
        )
    if train:
        _require_seen(cfg)
    _require_biased(cfg)
    if train and cfg.SOLVER.CHECKPOINT_BEST and not datasets.TEST:
        raise ZssError(
            f"SOLVER.CHECKPOINT_BEST is {cfg.SOLVER.CHECKPOINT_BEST!r} and DATASETS.TEST is empty; "
            "name a data set to measure it on"
        )
    kind, _, word = cfg.SOLVER.CHECKPOINT_BEST.partition("-")
    if train and kind in ("IoU", "ACC"):
        classes = MetadataCatalog.get(datasets.TEST[0]).stuff_classes
        if word not in classes:
            raise ZssError(
                f"SOLVER.CHECKPOINT_BEST is {cfg.SOLVER.CHECKPOINT_BEST!r}, but {datasets.TEST[0]} "
                f"has no class {word!r}{closest(word, classes)}"
            )
    if train and cfg.SOLVER.CHECKPOINT_BEST in ("hIoU", "mIoU-S") and _only_tested(datasets.TEST):
        raise ZssError(
            f"SOLVER.CHECKPOINT_BEST is {cfg.SOLVER.CHECKPOINT_BEST!r}, but {datasets.TEST[0]} has "
            "no seen classes, and so no such value; set it to mIoU"
        )
    if not train and not datasets.TEST:
        raise ZssError("DATASETS.TEST is empty, so there is nothing to test on; name a data set")
    for key, names in _by_key(cfg).items():
        for name in names if train or key.endswith("TEST") else ():
            location = location_of(name)
            if location is None:
                continue
            try:
                if key.endswith("TEST"):
                    said = MetadataCatalog.get(name).pseudo_labels
                    require_ground_truth(name, [location.masks], said)
                    load_records(location, name)
                else:
                    _require_images(location)
            except ZssError as error:
                raise ZssError(f"{key} {name}: {error}") from None


def _require_seen(cfg: CfgNode) -> None:
    if not _is_supervised(cfg) and _only_tested(cfg.DATASETS.TRAIN):
        raise ZssError(
            f"DATASETS.TRAIN {cfg.DATASETS.TRAIN[0]} has no seen classes, being only tested on; "
            "use --eval-only, or train on another data set or a view with `unseen` "
            "(datasets/README.md, 'Other unseen classes')"
        )


def _require_biased(cfg: CfgNode) -> None:
    """Raise `ZssError` where ``TEST.SEEN_BIAS`` is subtracted from nothing."""
    if not cfg.TEST.SEEN_BIAS or not cfg.DATASETS.TEST:
        return
    trained = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    labelled = trained.stuff_classes if _is_supervised(cfg) else trained.seen_classes
    tested = (MetadataCatalog.get(name).stuff_classes for name in cfg.DATASETS.TEST)
    if not any(set(labelled).intersection(classes) for classes in tested):
        raise ZssError(
            f"TEST.SEEN_BIAS is {cfg.TEST.SEEN_BIAS} but has no effect: no class of "
            f"{', '.join(cfg.DATASETS.TEST)} is called as a seen class of {cfg.DATASETS.TRAIN[0]}; "
            "leave it out"
        )


def _is_supervised(cfg: CfgNode) -> bool:
    return cfg.ZERO_SHOT.SETTING == "supervised"


def _only_tested(names: Sequence[str]) -> bool:
    """Whether the first of these sets has no seen class."""
    return not MetadataCatalog.get(names[0]).seen_classes


def _by_key(cfg: CfgNode) -> dict[str, tuple[str, ...]]:
    return {"DATASETS.TRAIN": cfg.DATASETS.TRAIN, "DATASETS.TEST": cfg.DATASETS.TEST}


def _require_images(location: Location) -> None:
    for folder in (location.images, location.masks):
        require_folder(folder, location.remedy)
    if not location.has_images():
        raise ZssError(f"{location.images}: the folder holds no image; {location.remedy}")
