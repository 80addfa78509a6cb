"""Programs of the cases in NumPyro, jitted; for a Python that has numpyro and jax and needs neither torch nor pyzoo."""
