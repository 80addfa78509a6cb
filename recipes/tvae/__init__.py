"""T-VAE (Giannone et al. 2019) and the VAEs that it is compared with."""

from pyzoo.about import About

_PAPER = "Giannone et al. 2019"
_DATA = "MNIST, Fashion-MNIST, digits, own images"
_MINUTES = {"small": 6, "digits": 2, "long": 120, "paper": None}
_SHORT = {**_MINUTES, "small": 2, "digits": 1, "long": 40}

ABOUT = {
    "tvae": About(_PAPER, "transformations of images as latent variables", _DATA, _MINUTES),
    "tvae-vae": About(_PAPER, "T-VAE's networks as a VAE: its first baseline", _DATA, _SHORT),
    "tvae-vae-plus": About(
        _PAPER,
        "T-VAE's networks as a VAE of transformed images: its second baseline",
        _DATA,
        _SHORT,
    ),
    "tvae-table1": About(_PAPER, "T-VAE, VAE+ and VAE by k-NN accuracy in their latent spaces"),
    "tvae-figure2": About(_PAPER, "T-VAE, VAE+ and VAE by accuracy with few labels"),
}
