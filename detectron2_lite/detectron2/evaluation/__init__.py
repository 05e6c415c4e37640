"""Running a model over a data set, and semantic segmentation metrics."""

# ruff: noqa: F401  (re-exports)

from detectron2.evaluation.evaluator import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)
from detectron2.evaluation.sem_seg_evaluation import SemSegEvaluator
from detectron2.evaluation.testing import print_csv_format, verify_results
