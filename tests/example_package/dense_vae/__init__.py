"""A VAE of images whose networks are dense layers."""

from pyzoo.about import About

ABOUT = {
    "dense-vae": About(
        paper="Kingma and Welling 2014",
        shows="one latent for each image, by dense layers",
        data="MNIST, Fashion-MNIST, Omniglot, digits, own images",
        minutes={"small": 1, "digits": 1},
    )
}
