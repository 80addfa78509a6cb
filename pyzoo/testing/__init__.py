"""Checks for distributions, models and guides: pyzoo's own, and yours.

Each raises an AssertionError that says what does not hold.
"""

from pyzoo.testing.distributions import check_distribution
from pyzoo.testing.pairs import PairTests
from pyzoo.testing.programs import check_elbo, check_svi

__all__ = ["PairTests", "check_distribution", "check_elbo", "check_svi"]
