"""FC-VAE, the Graph VAE with all dependencies, of :mod:`benchmarks.cases.graph_vae`."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.infer import TraceMeanField_ELBO as ELBO

from benchmarks.with_numpyro.layers import Weights, batch_norm, linear, parameters, transposed

__all__ = ["ELBO", "make"]


def mlp(weights: Weights, name: str, x: Array) -> Array:
    """Linear, batch norm and ELU for each hidden width, and a last linear layer."""
    layer = 0
    while f"{name}.{layer + 1}.weight" in weights:
        x = jax.nn.elu(batch_norm(weights, f"{name}.{layer + 1}", linear(weights, f"{name}.{layer}", x)))
        layer += 3
    return linear(weights, f"{name}.{layer}", x)


def moments(weights: Weights, name: str, x: Array) -> tuple[Array, Array]:
    """Mean and log-variance of a node."""
    hidden = mlp(weights, f"{name}.hidden", x)
    return linear(weights, f"{name}.loc", hidden), linear(weights, f"{name}.log_variance", hidden)


def above(z: dict[int, Array], node: int) -> Array:
    """The values of all nodes above, side by side."""
    return jnp.concatenate([z[parent] for parent in sorted(z) if parent > node], -1)


def make(of_model: Weights, of_guide: Weights):
    """Model and guide with these weights at the start."""
    of_model, of_guide = transposed(of_model), transposed(of_guide)
    nodes = max(int(name.split(".")[1]) for name in of_guide if name.startswith("bottom_up"))
    node_dim = of_guide["bottom_up.1.loc.layer.bias"].shape[0]

    def model(x):
        weights = parameters("model", of_model)
        with numpyro.plate("data", len(x)):
            z: dict[int, Array] = {}
            for node in range(nodes, 0, -1):
                loc, log_variance = jnp.zeros((2, len(x), node_dim))
                if z:
                    loc, log_variance = moments(weights, f"top_down.{node}", above(z, node))
                z[node] = numpyro.sample(f"z_{node}", dist.Normal(loc, jnp.exp(log_variance / 2)).to_event(1))
            logits = mlp(weights, "decoder.network", above(z, 0))
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x.reshape(len(x), -1))

    def guide(x):
        weights = parameters("guide", of_guide)
        features = mlp(weights, "encoder.2", x.reshape(len(x), -1))
        with numpyro.plate("data", len(x)):
            z: dict[int, Array] = {}
            for node in range(nodes, 0, -1):
                loc, log_variance = moments(weights, f"bottom_up.{node}", features)
                if z:
                    guess_loc, guess_log_variance = moments(weights, f"top_down.{node}", above(z, node))
                    share = jax.nn.sigmoid(guess_log_variance - log_variance)
                    loc, log_variance = guess_loc + share * (loc - guess_loc), log_variance + jnp.log(share)
                z[node] = numpyro.sample(f"z_{node}", dist.Normal(loc, jnp.exp(log_variance / 2)).to_event(1))

    return model, guide
