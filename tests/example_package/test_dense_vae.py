"""What every pair of a model and its guide must pass."""

import torch

from dense_vae.model import DenseVAENetworks
from pyzoo.testing import PairTests


class TestDenseVAE(PairTests):
    def make(self):
        networks = DenseVAENetworks(z_dim=2, hidden_dim=8, x_shape=(1, 4, 4))
        model = networks.model()
        return model, networks.guide(model)

    def batch(self):
        return {"x": torch.rand(3, 1, 4, 4).round()}
