"""CompVAE on curves, of :mod:`benchmarks.cases.compvae`."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints
from numpyro.infer import Trace_ELBO as ELBO

from benchmarks.with_numpyro.layers import (
    Weights,
    chain,
    conv,
    conv_transpose,
    linear,
    parameters,
    residual,
    transposed,
)

__all__ = ["ELBO", "make"]


class CorrelatedNormal(dist.Distribution):
    """Normals that share their noise, over the last dimension (appendix C)."""

    support = constraints.real_vector
    reparametrized_params = ("loc", "scale", "logits")

    def __init__(self, loc: Array, scale: Array, logits: Array) -> None:
        self.loc, self.scale, self.logits = loc, scale, logits
        shares = jax.nn.log_softmax(jnp.concatenate([logits, jnp.zeros_like(logits[..., :1])], -1), -1)
        self.rho, self.log_remainder = jnp.exp(shares[..., :-1]), shares[..., -1]
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def sample(self, key, sample_shape=()):
        noise = jax.random.normal(key, (*sample_shape, *self.loc.shape))
        return self.loc + self.scale * (noise - self.rho * noise.sum(-1, keepdims=True))

    def log_prob(self, value):
        y = (value - self.loc) / self.scale
        noise = y + self.rho * y.sum(-1, keepdims=True) / jnp.exp(self.log_remainder)[..., None]
        terms = noise**2 / 2 + jnp.log(self.scale) + math.log(2 * math.pi) / 2
        return -terms.sum(-1) - self.log_remainder


def scale_above_floor(log_variance: Array) -> Array:
    """Standard deviation of a log-variance, kept smoothly above the networks' ``scale_floor``."""
    lowest = 2 * math.log(0.001)
    return jnp.exp((lowest + jax.nn.softplus(log_variance - lowest)) / 2)


def graph_block(weights: Weights, name: str, nodes: Array) -> Array:
    """Every part looks at itself and at the sum of all others."""
    message = residual(weights, f"{name}.message.2", jax.nn.elu(residual(weights, f"{name}.message.0", nodes)))
    others = message.sum(1, keepdims=True) - message
    received = residual(weights, f"{name}.received.1", jnp.tanh(others))
    update = linear(weights, f"{name}.update.0", jnp.concatenate([nodes, received], -1))
    found = residual(weights, f"{name}.update.2", jax.nn.elu(update))
    last = f"{name}.update.4"
    return linear(weights, last, jax.nn.elu(found)) if f"{last}.weight" in weights else found


def make(of_model: Weights, of_guide: Weights):
    """Model and guide with these weights at the start."""
    of_model, of_guide = transposed(of_model), transposed(of_guide)
    blocks = 1 + max(int(name.split(".")[1]) for name in of_guide if name.startswith("part_posterior") and "message" in name)

    def decoded(weights: Weights, whole: Array, z: Array) -> tuple[Array, Array]:
        hidden = chain(
            linear(weights, "decoder.dense.0", jnp.concatenate([whole, z], -1)),
            lambda x: residual(weights, "decoder.dense.2", jax.nn.elu(x)),
            partial(residual, weights, "decoder.dense.4"),
            partial(residual, weights, "decoder.dense.6"),
        )
        hidden = chain(
            jax.nn.elu(hidden).reshape(len(hidden), -1, 5),
            partial(conv_transpose, weights, "decoder.convolutions.1", stride=2),
            partial(conv, weights, "decoder.convolutions.3", padding=3),
            partial(conv_transpose, weights, "decoder.convolutions.5", stride=4),
            partial(conv, weights, "decoder.convolutions.7", padding=3),
            partial(conv_transpose, weights, "decoder.convolutions.9", stride=5),
            partial(conv, weights, "decoder.convolutions.11.layer", padding=3),
        )
        return hidden[:, 0, 35:235], hidden[:, 1, 35:235]

    def model(parts, x):
        weights = parameters("model", of_model)
        loc = weights["part_prior.loc.weight"][parts].swapaxes(1, 2)
        scale = scale_above_floor(weights["part_prior.log_variance.weight"][parts].swapaxes(1, 2))
        with numpyro.plate("data", len(x)):
            w = numpyro.sample("w", dist.Normal(loc, scale).to_event(2))
            whole = w.sum(-1)
            hidden = jax.nn.elu(linear(weights, "whole_prior.0", whole))
            z_loc, z_log_variance = jnp.split(linear(weights, "whole_prior.2.layer", hidden), 2, -1)
            z = numpyro.sample("z", dist.Normal(z_loc, scale_above_floor(z_log_variance)).to_event(1))
            x_loc, x_log_variance = decoded(weights, whole, z)
            numpyro.sample("x", dist.Normal(x_loc, scale_above_floor(x_log_variance)).to_event(1), obs=x)

    def guide(parts, x):
        weights = parameters("guide", of_guide)
        features = chain(
            x[:, None],
            partial(conv, weights, "encoder.2", stride=5),
            partial(conv, weights, "encoder.4", padding=3),
            partial(conv, weights, "encoder.6", stride=3),
            partial(conv, weights, "encoder.8", padding=3),
            partial(conv, weights, "encoder.10", stride=2),
            lambda x: residual(weights, "encoder.13", x.reshape(len(x), -1)),
        )
        features = jax.nn.elu(features)
        z_moments = chain(
            features,
            partial(linear, weights, "whole_posterior.0"),
            partial(residual, weights, "whole_posterior.2"),
            partial(residual, weights, "whole_posterior.4"),
            partial(linear, weights, "whole_posterior.6.layer"),
        )
        z_loc, z_log_variance = jnp.split(z_moments, 2, -1)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(z_loc, jnp.exp(z_log_variance / 2)).to_event(1))
            label = weights["label.embedding.weight"][parts]
            unscored = dist.Normal(jnp.zeros_like(label), 1.0).to_event(2).mask(False)
            epsilon = numpyro.sample("epsilon", unscored, infer={"is_auxiliary": True})
            whole = jnp.concatenate([features, z], -1)[:, None]
            nodes = jnp.concatenate([jnp.broadcast_to(whole, (*parts.shape, whole.shape[-1])), label + epsilon], -1)
            for block in range(0, blocks, 2):
                nodes = jax.nn.elu(graph_block(weights, f"part_posterior.{block}", nodes))
            found = linear(weights, f"part_posterior.{blocks + 1}.layer", nodes).swapaxes(1, 2)
            w_loc, w_log_variance, logits = jnp.split(found, 3, 1)
            numpyro.sample("w", CorrelatedNormal(w_loc, jnp.exp(w_log_variance / 2), logits).to_event(1))

    return model, guide
