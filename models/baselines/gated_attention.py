"""Gated attention over patches (Ilse et al., 2018): a_i = w^T (tanh(V h_i) * sigmoid(U h_i))."""

from torch import Tensor, nn


class GatedAttention(nn.Module):
    """(N, D) -> (N, branches), the scores before the softmax over patches.

    dim: D. hidden: width of both branches. dropout: behind tanh and behind the sigmoid.
    """

    def __init__(self, dim: int, hidden: int, branches: int = 1, dropout: float = 0.0):
        super().__init__()
        self.content = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.gate = nn.Sequential(nn.Linear(dim, hidden), nn.Sigmoid(), nn.Dropout(dropout))
        self.score = nn.Linear(hidden, branches)

    def forward(self, patches: Tensor) -> Tensor:
        scores: Tensor = self.score(self.content(patches) * self.gate(patches))
        return scores
