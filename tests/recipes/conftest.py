"""What tests of recipes on images share."""

import pytest
import torch

from pyzoo.data.files import ImageData


@pytest.fixture(scope="session", autouse=True)
def _figures(quick_figures):
    """All of this folder draws figures to see that they can be drawn."""


@pytest.fixture
def images_are(monkeypatch):
    """Images in place of those that a recipe's data name."""

    def replace(train, test=None):
        data = ImageData("images", train, train[:10] if test is None else test, torch.arange(len(train)) % 10, torch.arange(10))
        monkeypatch.setattr("pyzoo.recipes.images.load_image_data", lambda *arguments: data)

    return replace
