"""Importance-weighted likelihoods of FC-VAE: microseconds for a sample of an image, as the programs stand and compiled.

    python benchmarks/likelihood.py [--samples 5000] [--images 100] [--rounds 3]

Both take turns. Compiling counts by itself: it is once for a number of images, and a test set has ten thousand.
"""

import argparse
import statistics
import time

import pyro
import torch

from pyzoo.infer import log_likelihood
from pyzoo.models.graph_vae import GraphVAENetworks
from pyzoo.training import keep_freed_memory

ROWS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    networks = GraphVAENetworks(structure="full")
    model = networks.model().eval()
    guide = networks.guide(model).eval()
    x = torch.rand(arguments.images, 1, 28, 28).round()
    found: dict[bool, list[float]] = {False: [], True: []}
    few = 2 * ROWS // arguments.images  # two calls of the programs, the second of which is compiled
    with pyro.validation_enabled(False):
        for _ in range(arguments.rounds):
            for compile in found:
                seconds = []
                for samples in (few, arguments.samples + few):
                    started = time.perf_counter()
                    log_likelihood(model, guide, {"x": x}, samples, ROWS, compile=compile)
                    seconds.append(time.perf_counter() - started)
                found[compile].append(1e6 * (seconds[1] - seconds[0]) / (arguments.samples * arguments.images))
                if compile:
                    print(f"compiling takes about {seconds[0]:.0f} s")
    standing, compiled = (statistics.median(each) for each in found.values())
    ratios = [two / one for one, two in zip(*found.values(), strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{standing:.1f} us as it stands, {compiled:.1f} us compiled: {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
