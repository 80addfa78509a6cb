"""Every function that takes integers takes every integer type, and says in its own words what it refuses."""

import pytest
import torch

from pyzoo.checks import as_indices
from pyzoo.data.multimodal import ImagePartner, Label, PairSet
from pyzoo.data.street_numbers import street_numbers
from pyzoo.models.compvae import SinesNetworks

INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
IMAGES = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)


def generator():
    return torch.Generator().manual_seed(0)


def pairs(labels):
    partner = ImagePartner("next", IMAGES, labels, offset=1)
    set_of_pairs = PairSet(IMAGES, labels, partner)
    return torch.cat([view.flatten() for view in set_of_pairs.views(slice(None), generator()).values()])


def compvae(labels):
    torch.manual_seed(0)
    networks = SinesNetworks(w_dim=8, z_dim=3, graph_widths=(8,), prior_width=8, decoder_width=40, encoder_width=40)
    model = networks.model()
    guide = networks.guide(model)
    parts = labels.view(2, 5)
    return torch.cat([model(parts=parts), guide(parts=parts, x=torch.zeros(2, 200)) or torch.zeros(0, 200)])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(
    "function", [lambda labels: street_numbers(labels, generator()), lambda labels: Label()(labels, generator()), pairs, compvae]
)
def test_every_integer_type_gives_the_same(function, dtype):
    labels = torch.tensor([9, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    torch.manual_seed(0)
    expected = function(labels)
    torch.manual_seed(0)
    assert torch.equal(function(labels.to(dtype)), expected)


@pytest.mark.parametrize("labels", [torch.tensor([1.0]), torch.tensor([True]), torch.tensor(1), torch.zeros(2, 2).long()])
def test_what_is_no_list_of_integers_is_refused_by_name(labels):
    for function in (lambda x: as_indices(x, "labels"), lambda x: street_numbers(x, generator()), lambda x: Label()(x, None)):
        with pytest.raises(ValueError, match="labels must be integers in 1 dimension, got torch"):
            function(labels)
