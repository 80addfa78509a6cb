"""The layers of the networks as functions of their weights, which keep the names that torch gives them."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax

__all__ = ["Weights", "batch_norm", "chain", "conv", "conv_transpose", "linear", "parameters", "residual", "transposed"]

Weights = Mapping[str, Array]


def parameters(name: str, weights: Weights) -> Weights:
    """The weights as a parameter of a program."""
    return numpyro.param(name, dict(weights))


def transposed(weights: Weights) -> Weights:
    """Weights whose linear layers are (inputs, outputs), as JAX's libraries have them; embeddings stay as they are."""

    def is_linear(name: str) -> bool:
        return name.endswith(".weight") and weights[name].ndim == 2 and f"{name.removesuffix('weight')}bias" in weights

    return {name: value.T if is_linear(name) else value for name, value in weights.items()}


def linear(weights: Weights, name: str, x: Array) -> Array:
    """A linear layer, by its own name or by that of the ``Head`` around it."""
    name = name if f"{name}.weight" in weights else f"{name}.layer"
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def residual(weights: Weights, name: str, x: Array) -> Array:
    return x + linear(weights, f"{name}.outer", jax.nn.elu(linear(weights, f"{name}.inner", x)))


def batch_norm(weights: Weights, name: str, x: Array, epsilon: float = 1e-5) -> Array:
    normal = (x - x.mean(0)) * lax.rsqrt(x.var(0) + epsilon)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def conv(weights: Weights, name: str, x: Array, stride: int = 1, padding: int = 0) -> Array:
    """Over (batch, channels, steps)."""
    kernel = weights[f"{name}.weight"]
    found = lax.conv_general_dilated(x, kernel, (stride,), [(padding, padding)])
    return found + weights[f"{name}.bias"][:, None]


def conv_transpose(weights: Weights, name: str, x: Array, stride: int) -> Array:
    """Over (batch, channels, steps), without padding."""
    kernel = jnp.flip(weights[f"{name}.weight"].swapaxes(0, 1), -1)
    margin = kernel.shape[-1] - 1
    found = lax.conv_general_dilated(x, kernel, (1,), [(margin, margin)], lhs_dilation=(stride,))
    return found + weights[f"{name}.bias"][:, None]


def chain(x: Array, *layers: Callable[[Array], Array]) -> Array:
    """Each layer after the one before, with ELU between them."""
    for number, layer in enumerate(layers):
        x = layer(x if number == 0 else jax.nn.elu(x))
    return x
