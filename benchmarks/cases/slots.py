"""MONet and Genesis on scenes of sprites, and both with the message passing prior."""

import math

import torch
from torch.nn.functional import logsigmoid

from benchmarks.cases import Case
from pyzoo.data.scenes import sprites
from pyzoo.models.genesis import GenesisNetworks, MPPGenesisNetworks
from pyzoo.models.monet import MONetNetworks, MPPMONetNetworks

SMALL = {
    "monet": {
        "num_slots": 4,
        "attention_channels": (16, 32, 32, 32),
        "decoder_channels": (32, 32, 32),
        "x_shape": (3, 32, 32),
    },
    "genesis": {
        "num_slots": 5,
        "mask_dim": 16,
        "hidden_dim": 128,
        "channels": (16, 32, 32),
        "decoder_channels": (32, 32, 32),
        "x_shape": (3, 32, 32),
    },
}
_SIZES: dict[str, tuple[str, dict, int]] = {
    "monet-small": ("monet", SMALL["monet"], 16),
    "genesis-small": ("genesis", SMALL["genesis"], 32),
    "monet": ("monet", {"num_slots": 5}, 32),
    "genesis": ("genesis", {"num_slots": 5}, 32),
    "monet-7": ("monet", {"num_slots": 7}, 32),
    "genesis-7": ("genesis", {"num_slots": 7}, 32),
    "mpp-monet-small": ("mpp-monet", SMALL["monet"], 16),
    "mpp-genesis-small": ("mpp-genesis", SMALL["genesis"], 32),
    "mpp-monet": ("mpp-monet", {"num_slots": 5}, 32),
    "mpp-genesis": ("mpp-genesis", {"num_slots": 5}, 32),
}
_NETWORKS = {
    "monet": MONetNetworks,
    "genesis": GenesisNetworks,
    "mpp-monet": MPPMONetNetworks,
    "mpp-genesis": MPPGenesisNetworks,
}
SIZES = {size: f"K = {sizes['num_slots']}, batch {batch}" for size, (_, sizes, batch) in _SIZES.items()}


def normal_kl(p_loc, p_scale, q_loc, q_scale):
    """KL from q to p, summed over all but the first dimension."""
    ratio = q_scale / p_scale
    return (0.5 * (ratio**2 + ((q_loc - p_loc) / p_scale) ** 2 - 1) - ratio.log()).flatten(1).sum(1)


def related_kl(relations, loc, scale, z):
    """KL of the slots' global latents, (batch, slots, dim), and of the scene's: z is drawn, the scene's latent is drawn here."""
    noise, spread, weights = relations.log_scale.exp(), relations.log_posterior_scale.exp(), relations.log_weights.softmax(0)
    messages = torch.stack([f(z[:, k]) for k, f in enumerate(relations.maps)], 1)
    mean = (weights * messages).sum(1)
    h = mean + spread * torch.randn_like(mean)
    expected = torch.stack([f.inverse(h) for f in relations.maps], 1)
    log_ratio = 0.5 * (((z - expected) / noise) ** 2 - ((z - loc) / scale) ** 2) + noise.log() - scale.log()
    return log_ratio.flatten(1).sum(1) + normal_kl(torch.zeros(()), torch.ones(()), mean, spread.expand_as(mean))


def slots_kl(model, p_loc, p_scale, loc, scale, z):
    """KL of what the slots look like, z, from N(p_loc, p_scale) or, of its global part, from the message passing prior."""
    if model.relations is None:
        return normal_kl(p_loc, p_scale, loc, scale)
    local, dim = loc.shape[-1] - model.relations.dim, model.relations.dim
    own = normal_kl(p_loc[..., :local], p_scale[..., :local], loc[..., :local], scale[..., :local])
    return own + related_kl(model.relations, loc[..., -dim:], scale[..., -dim:], z[..., -dim:])


def mixture_loss(x, components, log_masks, scale):
    """-log p(x | z, m), one mixture for each pixel, joint over channels."""
    log_slot = -0.5 * ((x.unsqueeze(1) - components) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    return -(log_masks + log_slot.sum(2)).logsumexp(1).flatten(1).sum(1)


def encoded(encoder, x, log_masks):
    slots = log_masks.shape[1]
    images = x.unsqueeze(1).expand(-1, slots, -1, -1, -1)
    seen = torch.cat([images, log_masks.exp().unsqueeze(2)], 2)
    loc, log_variance = encoder(seen.flatten(0, 1)).unflatten(0, (len(x), slots)).chunk(2, -1)
    return loc, (0.5 * log_variance).exp()


def monet_loss(model, guide, x):
    log_scope, log_masks = torch.zeros_like(x[:, :1]), []
    for _ in range(model.num_slots - 1):
        logits = guide.attention.network(torch.cat([x, log_scope], 1))
        log_masks.append(log_scope + logsigmoid(logits))
        log_scope = log_scope + logsigmoid(-logits)
    log_masks = torch.cat([*log_masks, log_scope], 1)
    loc, scale = encoded(guide.encoder, x, log_masks)
    z = loc + scale * torch.randn_like(loc)
    decoded = model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    loss = mixture_loss(x, decoded[:, :, :-1], log_masks, model.scales[:, None, None, None])
    divergence = (log_masks.exp() * (log_masks - decoded[:, :, -1].log_softmax(1))).flatten(1).sum(1)
    kl = slots_kl(model, torch.zeros_like(loc), torch.ones_like(loc), loc, scale, z)
    return (loss + kl + model.mask_weight * divergence).mean()


def genesis_loss(model, guide, x):
    features = guide.image_encoder(x)
    before, state, prior_state, p_loc, p_scale = features.new_zeros(len(x), model.mask_dim), None, None, None, None
    kl, drawn = 0.0, []
    for slot in range(model.num_slots):
        state = guide.recurrent(torch.cat([features, before], -1), state)
        loc, log_variance = guide.mask_head(state[0]).chunk(2, -1)
        scale = (0.5 * log_variance).exp()
        if slot == 0:
            p_loc, p_scale = torch.zeros_like(loc), torch.ones_like(loc)
        kl = kl + normal_kl(p_loc, p_scale, loc, scale)
        before = loc + scale * torch.randn_like(loc)
        drawn.append(before)
        if slot < model.num_slots - 1:
            prior_state = model.mask_prior.cell(before, prior_state)
            p_loc, p_log_variance = model.mask_prior.head(prior_state[0]).chunk(2, -1)
            p_scale = (0.5 * p_log_variance).exp()
    z_m = torch.stack(drawn, 1)
    logits = model.mask_decoder(z_m[:, :-1].flatten(0, 1)).unflatten(0, (len(x), -1)).squeeze(2)
    left = torch.cat([torch.zeros_like(logits[:, :1]), logsigmoid(-logits).cumsum(1)], 1)
    log_masks = left + torch.cat([logsigmoid(logits), torch.zeros_like(logits[:, :1])], 1)
    loc, scale = encoded(guide.component_encoder, x, log_masks)
    p_loc, p_log_variance = model.component_prior(z_m).chunk(2, -1)
    z = loc + scale * torch.randn_like(loc)
    kl = kl + slots_kl(model, p_loc, (0.5 * p_log_variance).exp(), loc, scale, z)
    components = model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2]).sigmoid()
    return (mixture_loss(x, components, log_masks, model.scale) + kl).mean()


def make(size: str, device: torch.device) -> Case:
    name, sizes, batch = _SIZES[size]
    return _case(name, sizes, batch, 20 if size.endswith("small") else 3, device)


def with_slots(slots: int, device: torch.device) -> Case:
    """A small MONet of so many slots."""
    name, sizes, batch = _SIZES["monet-small"]
    return _case(name, {**sizes, "num_slots": slots}, batch, 10, device)


def _case(name: str, sizes: dict, batch: int, steps: int, device: torch.device) -> Case:
    networks = _NETWORKS[name](**sizes)
    model = networks.model()
    model, guide = model.to(device), networks.guide(model).to(device)
    x = sprites(batch, torch.Generator(device).manual_seed(0), networks.x_shape[1], 4).images / 255
    loss_of = monet_loss if name.endswith("monet") else genesis_loss
    return Case(model, guide, {"x": x}, lambda: loss_of(model, guide, x), {"lr": 1e-4}, steps)
