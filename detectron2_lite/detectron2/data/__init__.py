"""Data sets by name, loaders and augmentations."""

# ruff: noqa: F401  (re-exports)

from detectron2.data import detection_utils, samplers, transforms
from detectron2.data.build import (
    DatasetFromList,
    MapDataset,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
