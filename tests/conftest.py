"""What tests of several folders share."""

import pytest
import torch

from pyzoo.distributions import WeightedProductOfExperts


@pytest.fixture
def at_mean(monkeypatch):
    """Latents at the means of their posteriors, so that losses can be written by hand."""

    def rsample(self, sample_shape=()):
        return self.mean.expand(self._extended_shape(sample_shape))

    for kind in (torch.distributions.Normal, WeightedProductOfExperts):
        monkeypatch.setattr(kind, "rsample", rsample)
