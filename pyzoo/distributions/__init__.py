"""Distributions for anyone's Pyro code."""

from pyzoo.distributions.correlated_normal import CorrelatedNormal
from pyzoo.distributions.weighted_product_of_experts import WeightedProductOfExperts

__all__ = ["CorrelatedNormal", "WeightedProductOfExperts"]
