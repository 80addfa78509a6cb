"""MONet and MPP^M: the pair's contract, the objective by hand, masks, and bad input."""

import math

import pyro
import pytest
import torch
from torch.nn.functional import conv2d, softplus

from pyzoo.errors import UsageError
from pyzoo.guides.monet import Attention, UNet
from pyzoo.infer import NegativeELBO
from pyzoo.models.monet import MONetNetworks, MPPMONetNetworks, SpatialBroadcastDecoder
from pyzoo.testing import PairTests

SIZES = {
    "num_slots": 3,
    "z_dim": 5,
    "encoder_channels": (4, 4),
    "decoder_channels": (4, 4),
    "attention_channels": (4, 4),
    "attention_hidden_dim": 6,
    "x_shape": (3, 8, 8),
}
RELATED = {**SIZES, "global_dim": 2, "coupling_dims": (6,), "relation_scale": 0.3}
KINDS = {"monet": lambda **more: MONetNetworks(**SIZES, **more), "mpp": lambda **more: MPPMONetNetworks(**RELATED, **more)}


def pair(kind, **more):
    torch.manual_seed(0)
    networks = KINDS[kind](**more)
    model = networks.model()
    return model, networks.guide(model)


class TestMONet(PairTests):
    def make(self):
        return pair("monet")

    def batch(self):
        return {"x": torch.rand(2, 3, 8, 8)}


class TestMPPMONet(PairTests):
    def make(self):
        return pair("mpp")

    def batch(self):
        return {"x": torch.rand(2, 3, 8, 8)}


def normal_kl(loc, scale):
    return (0.5 * (loc**2 + scale**2 - 1) - scale.log()).flatten(1).sum(1)


@pytest.mark.parametrize("likelihood", ["mixture", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_by_hand(at_mean, kind, likelihood):
    model, guide = (program.double() for program in pair(kind, likelihood=likelihood, mask_weight=0.7))
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    weights = {"z": 0.5} if kind == "monet" else {"z_c": 0.5}
    found, _ = NegativeELBO(model, guide, weights)(x=x)

    scope, masks = torch.ones(4, 8, 8, dtype=torch.float64), []
    for _ in range(2):
        share = guide.attention.network(torch.cat([x, scope.log().unsqueeze(1)], 1)).squeeze(1).sigmoid()
        masks.append(scope * share)
        scope = scope * (1 - share)
    masks = torch.stack([*masks, scope], 1)
    seen = [guide.encoder(torch.cat([x, masks[:, k : k + 1]], 1)).chunk(2, 1) for k in range(3)]
    loc = torch.stack([one for one, _ in seen], 1)
    scale = torch.stack([(0.5 * other).exp() for _, other in seen], 1)
    if kind == "monet":
        kl = 0.5 * normal_kl(loc, scale)
    else:
        local, shared = slice(0, 3), slice(3, 5)
        y = loc[..., shared]
        h = torch.stack([f(y[:, k]) for k, f in enumerate(model.relations.maps)]).mean(0)  # equal weights at the start
        again = torch.stack([f.inverse(h) for f in model.relations.maps], 1)
        log_q = (-scale[..., shared].log() - 0.5 * math.log(2 * math.pi)).sum((1, 2))
        noise = model.relations.log_scale.exp()  # 0.3, as a float32 has it
        log_p = (-0.5 * ((y - again) / noise) ** 2 - noise.log() - 0.5 * math.log(2 * math.pi)).sum((1, 2))
        kl = (
            0.5 * normal_kl(loc[..., local], scale[..., local])
            + log_q
            - log_p
            + normal_kl(h, model.relations.log_posterior_scale.exp().expand_as(h))
        )
    decoded = torch.stack([model.decoder(loc[:, k]) for k in range(3)], 1)
    sigma = model.scales[:, None, None]
    torch.testing.assert_close(model.scales.tolist(), [0.09, 0.11, 0.11])
    error = ((x.unsqueeze(1) - decoded[:, :, :3]) ** 2).sum(2)
    log_slot = -0.5 * error / sigma**2 - 3 * sigma.log() - 1.5 * math.log(2 * math.pi)
    logits = decoded[:, :, 3]
    if likelihood == "mixture":
        log_p = (masks * log_slot.exp()).sum(1).log().sum((1, 2))
        divergence = (masks * (masks / logits.softmax(1)).log()).sum((1, 2, 3))
    else:
        log_p = (masks * log_slot).sum((1, 2, 3))
        cross = masks * softplus(-logits) + (1 - masks) * softplus(logits)
        divergence = (cross + masks * masks.log() + (1 - masks) * (1 - masks).log()).sum((1, 2, 3))
    expected = (-log_p + kl + 0.7 * divergence).mean()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("likelihood", ["mixture", "weighted"])
def test_mask_balance_changes_the_gradient_through_the_decoders_masks_alone(at_mean, likelihood):
    """Decoder's and encoder's are as if the divergence had another weight; the loss and the attention's masks' do not change."""
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)

    def loss_and_gradients(**more):
        model, guide = (program.double() for program in pair("monet", likelihood=likelihood, **more))
        masks = []
        guide.attention.register_forward_hook(lambda module, inputs, output: masks.append(output))
        guide.encoder.register_forward_pre_hook(lambda module, inputs: (inputs[0].detach(),))  # else masks move by latents too
        loss, _ = NegativeELBO(model, guide)(x=x)
        encoder = next(p for p in reversed(list(guide.encoder.parameters())) if p.dim() > 1)
        return [loss, *torch.autograd.grad(loss, [model.decoder.rest[-1].layer.weight, encoder, masks[0]])]

    plain, balanced = loss_and_gradients(mask_weight=0.5), loss_and_gradients(mask_weight=0.5, mask_balance=10.0)
    heavy = loss_and_gradients(mask_weight=5.0)
    torch.testing.assert_close(balanced[0], plain[0], rtol=1e-12, atol=0)
    for ours, theirs, before in zip(balanced[1:3], heavy[1:3], plain[1:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(ours, before)
    torch.testing.assert_close(balanced[3], plain[3], rtol=1e-10, atol=1e-12)


def test_masks_share_out_every_pixel():
    attention = Attention(UNet(4, (8, 8, 8), 16, (16, 16)), num_slots=6)
    masks = attention(5 * torch.randn(3, 3, 16, 16)).exp()
    assert masks.shape == (3, 6, 16, 16)
    assert (masks >= 0).all()
    assert (masks.sum(1) - 1).abs().max() <= 1e-6


def test_a_slot_that_takes_all_leaves_nothing_and_no_nan():
    class Greedy(torch.nn.Module):
        def forward(self, x):
            return torch.full_like(x[:, :1], 200.0)

    model, guide = pair("monet", likelihood="weighted")
    guide.attention.network = Greedy()
    loss, _ = NegativeELBO(model, guide)(x=torch.rand(2, 3, 8, 8))
    assert loss.isfinite()


def test_the_decoder_is_a_convolution_of_the_repeated_latent():
    decoder, z = SpatialBroadcastDecoder(5, (6,), (4, 8, 8)).double(), torch.randn(2, 5, dtype=torch.float64)
    places = decoder.places.expand(2, -1, -1, -1)
    repeated = torch.cat([z[..., None, None].expand(-1, -1, *places.shape[2:]), places], 1)
    weight = torch.cat([decoder.of_latent.weight[..., None, None].expand(-1, -1, 3, 3) / 9, decoder.of_place.weight], 1)
    torch.testing.assert_close(decoder(z), decoder.rest(conv2d(repeated, weight, decoder.of_place.bias)))


def test_without_coordinates_a_slot_has_one_color():
    spread = {}
    for reach in (0.0, 0.1, 1.0):
        torch.manual_seed(0)
        spread[reach] = SpatialBroadcastDecoder(5, (6, 6), (3, 8, 8), reach)(torch.randn(2, 5)).std((2, 3)).max()
    assert spread[0.0] == 0
    assert 0 < spread[0.1] < spread[1.0] / 5
    with pytest.raises(ValueError, match="reach must be"):
        SpatialBroadcastDecoder(5, (6,), (3, 8, 8), -1.0)


def test_slots_share_a_decoder_and_their_order_does_not_matter_to_the_mixture():
    model, _ = pair("monet", background_scale=0.11)
    z, log_masks = torch.randn(2, 3, 5), torch.randn(2, 3, 8, 8).log_softmax(1)
    x, order = torch.rand(2, 8, 8, 3), torch.tensor([2, 0, 1])
    one = model.mixture(model.components(z), log_masks).log_prob(x)
    other = model.mixture(model.components(z[:, order]), log_masks[:, order]).log_prob(x)
    torch.testing.assert_close(one, other)


def test_the_related_model_draws_related_slots():
    model, _ = pair("mpp")
    with torch.no_grad():
        model.relations.log_scale.fill_(math.log(1e-3))
        for coupling in model.relations.maps[0].couplings:
            coupling.nn[-1].bias.fill_(0.3)
    trace = pyro.poutine.trace(model).get_trace(size=50)
    z_g, z_0 = trace.nodes["z_g"]["value"], trace.nodes["z_0"]["value"]
    torch.testing.assert_close(z_g, model.relations.decode(z_0), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, "--num-slots must be at least 2"),
        ({"x_shape": (3, 35, 35), "encoder_channels": (4,) * 4}, "images of 35 pixels on a side .* --image-size 32 can"),
        ({"x_shape": (3, 40, 40), "attention_channels": (4,) * 5}, "--image-size (32|48) can"),
        ({"attention_channels": (4,)}, "--attention-channels must be 2 or more"),
        ({"scale": 0.0}, "--scale must be at least 1e-12"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises(UsageError, match=message):
        MONetNetworks(**{**SIZES, **changes}).model()


def test_bad_relations():
    with pytest.raises(UsageError, match="--global-dim must be below --z-dim 5"):
        MPPMONetNetworks(**{**RELATED, "global_dim": 5})
    model, _ = pair("mpp")
    with pytest.raises(ValueError, match="relations must be among 4 slots"):
        type(model)(model.decoder, 4, 5, model.relations)
    with pytest.raises(ValueError, match="likelihood is 'mixture' or 'weighted'"):
        type(model)(model.decoder, 3, 5, likelihood="sum")
