"""Metrics."""

from pyzoo.evaluation.classifier import class_probabilities, train_classifier
from pyzoo.evaluation.knn import few_label_accuracy, knn_accuracy
from pyzoo.evaluation.regression import pooled_r2

__all__ = ["class_probabilities", "few_label_accuracy", "knn_accuracy", "pooled_r2", "train_classifier"]
