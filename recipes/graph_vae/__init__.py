"""Graph VAE (He et al. 2019) and the fixed structures that it is compared with."""

from pyzoo.about import About

_PAPER = "He et al. 2019"
_DATA = "MNIST, Fashion-MNIST, Omniglot, CIFAR-10, digits, own images"
_ON_A_GPU = dict.fromkeys(("paper", "paper-omniglot", "paper-omniglot-drawers", "paper-cifar10"))
_MINUTES = {"small": 10, "digits": 1, "long": 150, **_ON_A_GPU}

ABOUT = {
    "graph-vae": About(_PAPER, "which latent depends on which, learned with the networks", _DATA, _MINUTES),
    "fc-vae": About(_PAPER, "each latent depends on all above it: a baseline of Graph VAE's", _DATA, _MINUTES),
    "ladder-vae": About(_PAPER, "latents in a chain: a baseline of Graph VAE's", _DATA, _MINUTES),
    "vae": About(_PAPER, "independent latents: a baseline of Graph VAE's", _DATA, _MINUTES),
    "graph-vae-table1": About(_PAPER, "VAE, Ladder VAE, FC-VAE and Graph VAE by their likelihoods"),
    "graph-vae-gates": About(_PAPER, "what closes gates: ways to train them, and a cost for each edge"),
    "graph-vae-figure4": About(_PAPER, "Graph VAE by its number of nodes and latent dimensions"),
}
