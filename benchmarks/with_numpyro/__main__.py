"""Times the steps of a NumPyro program from the weights and the batch of the case in PyTorch.

    PYTHON -m benchmarks.with_numpyro CASE FILE STEPS

FILE, a .npz that :mod:`benchmarks.rounds` writes, has the parameters of both programs, the batch, and a draw of the latents with
the logarithms of their densities by Pyro's programs: these must be the same here. Prints the median of the milliseconds of a
step as JSON. The optimizer's state is donated, so that it is updated in place. Batch norm keeps no running averages here, which
a step does not need.
"""

import importlib
import json
import resource
import statistics
import sys
import time

import jax
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import SVI
from numpyro.infer.util import log_density


def read(path: str) -> dict[str, dict[str, jax.Array]]:
    """The file's arrays by group: model, guide, batch, latents, densities, adam."""
    groups: dict[str, dict[str, jax.Array]] = {}
    with np.load(path) as file:
        for name in file.files:
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = jax.numpy.asarray(file[name])
    return groups


def require_same_densities(model, guide, found: dict[str, dict[str, jax.Array]]) -> None:
    """Raises an AssertionError unless both programs give the latents the densities that Pyro's programs give them."""
    for name, program in (("guide", guide), ("model", model)):
        seeded = handlers.seed(handlers.substitute(program, found["latents"]), jax.random.PRNGKey(0))
        ours, theirs = float(log_density(seeded, (), found["batch"], {})[0]), float(found["densities"][name])
        assert abs(ours - theirs) <= 1e-4 * abs(theirs), f"log-density of the {name}: {ours} here, {theirs} by Pyro"


def main() -> None:
    case, path, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    found = read(path)
    programs = importlib.import_module(f"benchmarks.with_numpyro.{case.replace('-', '_')}")
    model, guide = programs.make(found["model"], found["guide"])
    require_same_densities(model, guide, found)
    options = {name: value.tolist() for name, value in found["adam"].items()}
    learning_rate, (b1, b2) = options["lr"], options.get("betas", (0.9, 0.999))
    svi = SVI(model, guide, numpyro.optim.Adam(learning_rate, b1, b2), programs.ELBO())
    state = svi.init(jax.random.PRNGKey(1), **found["batch"])
    update = jax.jit(svi.update, donate_argnums=0)
    examples = len(found["batch"]["x"])
    times, losses = [], []
    for _ in range(steps + 5):
        started = time.perf_counter()
        state, loss = update(state, **found["batch"])
        losses.append(float(loss) / examples)
        times.append(time.perf_counter() - started)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    kept = {"ms": 1000 * statistics.median(times[5:]), "first_s": times[0], "MB": megabytes}
    print(json.dumps({**kept, "first": losses[0], "last": losses[-1]}))


if __name__ == "__main__":
    main()
