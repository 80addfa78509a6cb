"""Section 5 of Zhang et al. (2020): representations that tell what is to be predicted, and not the sensitive attribute."""
