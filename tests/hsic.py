"""An estimator that is not the library's own."""

import torch


class HSIC:
    """The Hilbert-Schmidt independence criterion of two latents: a surrogate of their information (Gretton et al. 2005)."""

    kind = "surrogate"

    def suits(self, sign, term, q):
        return sign > 0 and not term.given and (term.left | term.right) <= set(q.variables.latents)

    def estimate(self, term, beliefs):
        first, second = (self.centered_kernel(beliefs.joined(side)[1]) for side in (term.left, term.right))
        return (first * second).sum() / (len(first) - 1) ** 2

    def centered_kernel(self, draws):
        kernel = torch.exp(-torch.cdist(draws, draws).square() / (2 * draws.shape[1]))
        return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
