"""The VAE of :mod:`benchmarks.cases.vae`."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import TraceMeanField_ELBO as ELBO

from benchmarks.with_numpyro.layers import Weights, linear, parameters, transposed

__all__ = ["ELBO", "make"]


def make(of_model: Weights, of_guide: Weights):
    """Model and guide with these weights at the start."""
    of_model, of_guide = transposed(of_model), transposed(of_guide)

    def model(x):
        weights = parameters("model", of_model)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros((len(x), 50)), 1.0).to_event(1))
            hidden = jax.nn.softplus(linear(weights, "decoder.0", z))
            logits = linear(weights, "decoder.2", hidden)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        weights = parameters("guide", of_guide)
        hidden = jax.nn.softplus(linear(weights, "encoder.hidden", x))
        loc, log_scale = linear(weights, "encoder.loc", hidden), linear(weights, "encoder.log_scale", hidden)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide
