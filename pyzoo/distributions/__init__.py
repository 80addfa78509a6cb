"""Distributions for anyone's Pyro code."""

from pyzoo.distributions.correlated_normal import CorrelatedNormal

__all__ = ["CorrelatedNormal"]
