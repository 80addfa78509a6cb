"""What tests of several folders share."""

import functools

import pytest
import torch

from pyzoo.distributions import WeightedProductOfExperts


@pytest.fixture(scope="session")
def quick_figures():
    """Figures in a fraction of their time, for tests that look at which are drawn and not at what is seen."""
    from sklearn.manifold import TSNE  # takes a second to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.manifold.TSNE", functools.partial(TSNE, max_iter=250))
        patch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda self, figure: {})
        patch.setattr("pyzoo.files.DPI", 40)
        yield


@pytest.fixture
def at_mean(monkeypatch):
    """Latents at the means of their posteriors, so that losses can be written by hand."""

    def rsample(self, sample_shape=()):
        return self.mean.expand(self._extended_shape(sample_shape))

    for kind in (torch.distributions.Normal, WeightedProductOfExperts):
        monkeypatch.setattr(kind, "rsample", rsample)
