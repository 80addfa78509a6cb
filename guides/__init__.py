"""Inference programs, one file each: the guide that matches the model of the same name in ``pyzoo.models``."""
