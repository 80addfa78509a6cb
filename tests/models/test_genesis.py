"""Genesis and MPP^G: the pair's contract, the objective by hand, masks decoded once, and bad input."""

import math

import pyro
import pytest
import torch

from pyzoo.distributions import Deferred
from pyzoo.errors import UsageError
from pyzoo.infer import NegativeELBO
from pyzoo.models.genesis import Genesis, GenesisNetworks, MaskDecoder, MPPGenesisNetworks, decoded_masks, log_shares
from pyzoo.recipes.slots.decomposition import decompose
from pyzoo.testing import PairTests

SIZES = {
    "num_slots": 3,
    "mask_dim": 2,
    "z_dim": 5,
    "hidden_dim": 6,
    "channels": (4, 4),
    "decoder_channels": (4,),
    "x_shape": (3, 8, 8),
}
RELATED = {**SIZES, "global_dim": 2, "coupling_dims": (6,), "relation_scale": 0.3}
KINDS = {"genesis": lambda **more: GenesisNetworks(**SIZES, **more), "mpp": lambda **more: MPPGenesisNetworks(**RELATED, **more)}


def pair(kind, **more):
    torch.manual_seed(0)
    networks = KINDS[kind](**more)
    model = networks.model()
    return model, networks.guide(model)


class TestGenesis(PairTests):
    elbo_samples = 100

    def make(self):
        return pair("genesis")

    def batch(self):
        return {"x": torch.rand(2, 3, 8, 8)}


class TestMPPGenesis(PairTests):
    def make(self):
        return pair("mpp")

    def batch(self):
        return {"x": torch.rand(2, 3, 8, 8)}


def kl(q, p):
    (loc, scale), (other, wide) = q, p
    return (0.5 * ((scale**2 + (loc - other) ** 2) / wide**2 - 1) + wide.log() - scale.log()).flatten(1).sum(1)


def moments(parameters):
    loc, log_variance = parameters.chunk(2, -1)
    return loc, (0.5 * log_variance).exp()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_by_hand(at_mean, kind, training):
    model, guide = (program.double() for program in pair(kind))
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(3):  # averages of batch normalization that are not those at the start
        NegativeELBO(model, guide)(x=x)
    for program in (model, guide):
        program.train(training)
    found, terms = NegativeELBO(model, guide)(x=x)

    features, h, c, state = guide.image_encoder(x), None, None, None
    z_m, rates = [], 0.0
    for slot in range(3):
        before = z_m[-1] if z_m else x.new_zeros(4, 2)
        h, c = guide.recurrent(torch.cat([features, before], 1), None if h is None else (h, c))
        q = moments(guide.mask_head(h))
        p = (torch.zeros_like(q[0]), torch.ones_like(q[1]))
        if slot:
            state = model.mask_prior.cell(z_m[-1], state)
            p = moments(model.mask_prior.head(state[0]))
        rate = kl(q, p)
        torch.testing.assert_close(terms[f"z_m_{slot + 1}"], rate.mean(), rtol=1e-10, atol=1e-10)
        rates = rates + rate
        z_m.append(q[0])
    left, masks = torch.ones(4, 8, 8, dtype=torch.float64), []
    parts = model.mask_decoder(torch.cat(z_m[:2])).squeeze(1).sigmoid()  # in training their batch has both slots
    for part in parts.split(4):
        masks.append(left * part)
        left = left * (1 - part)
    masks = torch.stack([*masks, left], 1)
    seen = [moments(guide.component_encoder(torch.cat([x, masks[:, k : k + 1]], 1))) for k in range(3)]
    q = tuple(torch.stack(part, 1) for part in zip(*seen, strict=True))
    p = moments(model.component_prior(torch.stack(z_m, 1)))
    if kind == "genesis":
        rates = rates + kl(q, p)
    else:
        local, y, prior = slice(0, 3), q[0][..., 3:], model.relations
        rates = rates + kl(tuple(part[..., local] for part in q), tuple(part[..., local] for part in p))
        scene = torch.stack([f(y[:, k]) for k, f in enumerate(prior.maps)]).mean(0)  # equal weights at the start
        again = torch.stack([f.inverse(scene) for f in prior.maps], 1)
        noise = prior.log_scale.exp()
        log_q = (-q[1][..., 3:].log() - 0.5 * math.log(2 * math.pi)).sum((1, 2))
        log_p = (-0.5 * ((y - again) / noise) ** 2 - noise.log() - 0.5 * math.log(2 * math.pi)).sum((1, 2))
        standard = torch.zeros_like(scene), torch.ones_like(scene)
        rates = rates + log_q - log_p + kl((scene, prior.log_posterior_scale.exp().expand_as(scene)), standard)
    means = torch.stack([model.decoder(q[0][:, k]) for k in range(3)], 1).sigmoid()
    error = ((x.unsqueeze(1) - means) ** 2).sum(2)
    log_slot = -0.5 * error / model.scale**2 - 3 * model.scale.log() - 1.5 * math.log(2 * math.pi)
    log_p = (masks * log_slot.exp()).sum(1).log().sum((1, 2))
    torch.testing.assert_close(found, (rates - log_p).mean(), rtol=1e-10, atol=1e-8)


def test_with_masks_that_start_small_the_last_slot_has_most():
    for logit, least in ((0.0, 0.1), (-2.0, 0.6)):
        model, _ = pair("genesis", mask_logit=logit)
        shares = decoded_masks(model.mask_decoder, torch.randn(16, 3, 2)).exp().mean((0, 2, 3))
        assert shares[-1] > least
        assert (shares[-1] > 0.5) == (logit < 0)


def test_masks_are_normalized_over_the_batch_and_slots_are_not():
    model, guide = pair("genesis")
    x, z_m, log_masks = torch.rand(6, 3, 8, 8), torch.randn(6, 2), torch.randn(6, 3, 8, 8).log_softmax(1)
    for name, network, inputs in (("encoder", guide.image_encoder, x), ("decoder", model.mask_decoder, z_m)):
        assert not torch.allclose(network(inputs)[:2], network(inputs[:2]), atol=1e-3), name
    for found, alone in zip(guide.slots(x, log_masks), guide.slots(x[:2], log_masks[:2]), strict=True):
        torch.testing.assert_close(found[:2], alone)


def test_an_image_is_taken_apart_alone_as_in_a_batch():
    model, guide = pair("genesis")
    x = torch.rand(6, 3, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for found, alone in zip(decompose(model, guide, x), decompose(model, guide, x[:1]), strict=True):
        torch.testing.assert_close(found[:1], alone)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_decoder_sees_coordinates_as_far_as_it_is_told():
    for reach in (0.1, 1.0):
        assert pair("genesis", decoder_reach=reach)[0].decoder.places.abs().max() == pytest.approx(reach)


def test_masks_are_decoded_once_in_a_step():
    model, guide = pair("genesis")
    calls = []
    model.mask_decoder.register_forward_hook(lambda *arguments: calls.append(1))
    NegativeELBO(model, guide)(x=torch.rand(2, 3, 8, 8))
    assert len(calls) == 1
    model(size=2)
    assert len(calls) == 2


def test_shares_sum_to_one():
    masks = log_shares(10 * torch.randn(3, 4, 6, 6)).exp()
    assert masks.shape == (3, 5, 6, 6)
    assert (masks.sum(1) - 1).abs().max() <= 1e-6
    assert log_shares(torch.full((1, 2, 1), 500.0)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_are_drawn_from_the_prior(kind):
    model, _ = pair(kind)
    trace = pyro.poutine.trace(model).get_trace(size=3)
    assert trace.nodes["x"]["value"].shape == (3, 8, 8, 3)
    assert (trace.nodes["m"]["value"].exp().sum(1) - 1).abs().max() <= 1e-6
    assert ("z_0" in trace.nodes) == (kind == "mpp")


def test_a_deferred_point():
    calls = []
    point = Deferred(lambda: calls.append(1) or torch.ones(2, 3), (2,), (3,))
    assert not calls
    with pyro.plate("rows", 2):
        given = pyro.condition(lambda: pyro.sample("m", point.mask(False)), {"m": torch.zeros(2, 3)})()
        assert given.sum() == 0
        assert not calls
        assert pyro.sample("m", point.mask(False)).sum() == 6
    with pytest.raises(ValueError, match=r"The value must be \(3, 3\), got \(2, 3\)"):
        Deferred(lambda: torch.ones(2, 3), (3,), (3,))()
    with pytest.raises(ValueError, match="can't be changed"):
        point.expand((5, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, "--num-slots must be at least 2"),
        ({"x_shape": (3, 35, 35), "channels": (4,) * 4}, "images of 35 pixels on a side .* --image-size 32 can"),
        ({"scale": 0.0}, "--scale must be at least 1e-12"),
        ({"channels": ()}, "--channels must be 1 or more"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises(UsageError, match=message):
        GenesisNetworks(**{**SIZES, **changes}).model()


def test_bad_networks():
    model = GenesisNetworks(**SIZES).model()
    parts = (model.mask_prior, model.mask_decoder, model.component_prior, model.decoder)
    for place, name in enumerate(("mask_prior", "mask_decoder", "component_prior", "decoder")):
        with pytest.raises(ValueError, match=f"{name} must be of type Module, got NoneType"):
            Genesis(*parts[:place], None, *parts[place + 1 :], 3, 2, 5)
    with pytest.raises(ValueError, match="model's mask_dim is 2, not 4"):
        GenesisNetworks(**{**SIZES, "mask_dim": 4}).guide(model)
    for channels, size in (((4, 4), (9, 8)), ((), (8, 8))):
        with pytest.raises(ValueError, match=r"size must be what . doublings, at least one, come to"):
            MaskDecoder(4, channels, size)
    with pytest.raises(ValueError, match=r"z_m must be \(rows, 2\), got \(1, 3\)"):
        model.mask_decoder(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"x must be \(batch, 3, 8, 8\) with batch 4, got \(4, 3, 12, 12\)"):
        model(x=torch.rand(4, 3, 12, 12))


def test_one_slot_takes_all():
    torch.testing.assert_close(log_shares(torch.zeros(2, 0, 3)), torch.zeros(2, 1, 3))


def test_bad_relations():
    with pytest.raises(UsageError, match="--global-dim must be below --z-dim 5"):
        MPPGenesisNetworks(**{**RELATED, "global_dim": 5})
