"""Generative models, one file each: the Pyro model only. The guide of the same name stands in ``pyzoo.guides``."""
