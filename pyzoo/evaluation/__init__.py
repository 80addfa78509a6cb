"""Metrics, and what serves any model and guide."""

from pyzoo.evaluation.classifier import class_probabilities, train_classifier
from pyzoo.evaluation.fairness import fairness_metrics, leakage
from pyzoo.evaluation.knn import few_label_accuracy, knn_accuracy
from pyzoo.evaluation.programs import blocks, generate, mean_log_likelihood, posterior_means, reconstruct, site_terms
from pyzoo.evaluation.regression import pooled_r2

__all__ = [
    "blocks",
    "class_probabilities",
    "fairness_metrics",
    "few_label_accuracy",
    "generate",
    "knn_accuracy",
    "leakage",
    "mean_log_likelihood",
    "pooled_r2",
    "posterior_means",
    "reconstruct",
    "site_terms",
    "train_classifier",
]
