"""Metrics, and what serves any model and guide."""

from pyzoo.evaluation.classifier import class_probabilities, train_classifier
from pyzoo.evaluation.fairness import fairness_metrics, leakage
from pyzoo.evaluation.knn import few_label_accuracy, knn_accuracy
from pyzoo.evaluation.pieces import SlotPieces, match_slots, pieces_distance, pieces_of_slots
from pyzoo.evaluation.programs import blocks, generate, mean_log_likelihood, posterior_means, reconstruct, site_terms
from pyzoo.evaluation.regression import pooled_r2
from pyzoo.evaluation.segmentation import foreground_ari, mean_segmentation_covering, pixels_of_slots, require_masks, segments_of

__all__ = [
    "SlotPieces",
    "blocks",
    "class_probabilities",
    "fairness_metrics",
    "few_label_accuracy",
    "foreground_ari",
    "generate",
    "knn_accuracy",
    "leakage",
    "match_slots",
    "mean_log_likelihood",
    "mean_segmentation_covering",
    "pieces_distance",
    "pieces_of_slots",
    "pixels_of_slots",
    "pooled_r2",
    "posterior_means",
    "reconstruct",
    "require_masks",
    "segments_of",
    "site_terms",
    "train_classifier",
]
