"""The step of ``benchmarks/cases/vae.py`` as a NumPyro program, jitted; run by a Python that has numpyro and jax.

    python benchmarks/with_numpyro.py BATCH STEPS

Prints the median of the milliseconds of a step as JSON. The optimizer's state is donated, so that it is updated in place.
"""

import json
import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.infer import SVI, TraceMeanField_ELBO

heads = stax.FanOut(2), stax.parallel(stax.Dense(50), stax.serial(stax.Dense(50), stax.Exp))
encoder = stax.serial(stax.Dense(400), stax.Softplus, *heads)
decoder = stax.serial(stax.Dense(400), stax.Softplus, stax.Dense(784))


def model(x):
    decode = numpyro.module("decoder", decoder, (len(x), 50))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros((len(x), 50)), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)


def guide(x):
    encode = numpyro.module("encoder", encoder, (len(x), 784))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(*encode(x)).to_event(1))


def main() -> None:
    batch, steps = map(int, sys.argv[1:])
    x = jnp.round(jax.random.uniform(jax.random.PRNGKey(0), (batch, 784)))
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), TraceMeanField_ELBO())
    state = svi.init(jax.random.PRNGKey(1), x)
    update = jax.jit(svi.update, donate_argnums=0)
    times, losses = [], []
    for _ in range(steps + 5):
        started = time.perf_counter()
        state, loss = update(state, x)
        losses.append(float(loss) / batch)
        times.append(1000 * (time.perf_counter() - started))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": statistics.median(times[5:]), "MB": megabytes, "first": losses[0], "last": losses[-1]}))


if __name__ == "__main__":
    main()
