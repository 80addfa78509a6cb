"""Metrics."""

from pyzoo.evaluation.regression import pooled_r2

__all__ = ["pooled_r2"]
