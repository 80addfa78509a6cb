"""A recurrent cell that keeps its precision under autocast."""

import torch
from torch import Tensor, nn

__all__ = ["RecurrentCell"]


class RecurrentCell(nn.LSTMCell):
    """An LSTM cell that keeps its parameters' precision under autocast.

    Its state is carried from one step to the next, and what bfloat16 rounds off would be lost anew in each; beside convolutions
    it costs next to nothing.

    Example:
        >>> cell = RecurrentCell(4, 8)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     state, memory = cell(torch.zeros(2, 4))
        >>> state.dtype
        torch.float32
    """

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next state and memory, (batch, hidden_size) each, from an input, (batch, input_size), and those before."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight_ih.dtype), state)
