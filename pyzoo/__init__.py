"""Structured variational auto-encoders as Pyro programs."""
