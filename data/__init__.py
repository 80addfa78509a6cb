"""Data families, one file each: generators and readers with one interface.

The ``batch(step, size)`` of a source is a dict of tensors, a pure function of the source's seed and split and of the step.
"""
