"""Time and memory of training steps, each against hand-written PyTorch: ``python -m benchmarks``."""
