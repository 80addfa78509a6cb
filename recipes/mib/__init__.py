"""The multivariate-information-bottleneck framework (Zhang et al. 2020): rows of table 2, and BiVCCA and TELBO of section 4.2."""

from pyzoo.about import About

_PAPER = "Zhang et al. 2020"
_PAIRS = "MNIST or digits with labels, house numbers or the next digit; own images with labels"
_IMAGES = "MNIST, Fashion-MNIST, Omniglot, CIFAR-10, digits, own images"
_MINUTES = {"small": 6, "digits": 1, "digits-numbers": 6, "long": 30}
_SHORT = {"small": 2, "digits": 1, "digits-numbers": 2, "long": 10}

ABOUT = {
    "mib-multimodal": About(_PAPER, "what two views share, apart from what is specific to each", _PAIRS, _MINUTES),
    "mib-jmvae": About(_PAPER, "two views from one shared latent, inferred from either (JMVAE)", _PAIRS, _MINUTES),
    "mib-mvae": About(_PAPER, "two views from one shared latent, an ELBO for each subset (MVAE)", _PAIRS, _MINUTES),
    "mib-telbo": About(
        _PAPER, "two views from one shared latent, by weighted ELBOs of both and of each (TELBO)", _PAIRS, _MINUTES
    ),
    "mib-bivcca": About(_PAPER, "two views from one shared latent, inferred from one view at a time (BiVCCA)", _PAIRS, _MINUTES),
    "mib-wyner-vae": About(_PAPER, "private latents, and a shared one that holds little (Wyner-VAE)", _PAIRS, _MINUTES),
    "mib-vae": About(_PAPER, "a plain VAE as a row of the framework", _IMAGES, _SHORT),
    "mib-beta-vae": About(_PAPER, "a latent that holds little of its image (beta-VAE)", _IMAGES, _SHORT),
    "mib-beta-tcvae": About(_PAPER, "latents that are independent of each other (beta-TCVAE)", _IMAGES, _SHORT),
    "mib-gan": About(_PAPER, "a generator trained against a discriminator (GAN)", _IMAGES, _SHORT),
    "mib-infogan": About(_PAPER, "a GAN with a code that can be read off its images (InfoGAN)", _IMAGES, _SHORT),
    "mib-table2": About(_PAPER, "eleven methods and three case studies as declarations of one framework"),
    "mib-figure3": About(_PAPER, "the framework's method, MVAE and JMVAE by what one view says of the other"),
}
