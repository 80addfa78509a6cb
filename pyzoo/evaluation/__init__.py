"""Metrics."""

from pyzoo.evaluation.knn import few_label_accuracy, knn_accuracy
from pyzoo.evaluation.regression import pooled_r2

__all__ = ["few_label_accuracy", "knn_accuracy", "pooled_r2"]
