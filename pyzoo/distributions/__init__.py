"""Distributions for anyone's Pyro code."""

from pyzoo.distributions.correlated_normal import CorrelatedNormal
from pyzoo.distributions.deferred import Deferred
from pyzoo.distributions.divergences import dual_geometric_jensen_shannon
from pyzoo.distributions.message_passing_prior import InvertibleMap, MessagePassingPrior, procrustes_rotations
from pyzoo.distributions.weighted_product_of_experts import WeightedProductOfExperts

__all__ = [
    "CorrelatedNormal",
    "Deferred",
    "InvertibleMap",
    "MessagePassingPrior",
    "WeightedProductOfExperts",
    "dual_geometric_jensen_shannon",
    "procrustes_rotations",
]
