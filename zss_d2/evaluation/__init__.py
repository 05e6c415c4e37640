"""Metrics for seen and unseen classes, and what is written about a run."""

from zss_d2.evaluation.evaluator import ZeroShotSemSegEvaluator
from zss_d2.evaluation.results import read_results, write_results

__all__ = ["ZeroShotSemSegEvaluator", "read_results", "write_results"]
