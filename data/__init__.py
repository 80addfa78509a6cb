"""Data families, one file each: generators and loaders with one interface.

A source's ``batch(step, size)`` is a dict of tensors, a pure function of the source's seed and split and of the step.
"""
