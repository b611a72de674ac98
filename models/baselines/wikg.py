"""WiKG, a dynamic graph with knowledge-aware attention (Li et al., 2024)."""

import torch
from torch import Tensor, nn

from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, slide_loss
from utils.config import Config
from utils.interface import Bag, ModelOutput, SlideModel

HIDDEN = 512
DROPOUT = 0.3
SCORES_AT_ONCE = 2**24  # of all N x N


class WiKG(SlideModel):
    """Nodes: u_i = LeakyReLU(W0 x_i), u_i <- (u_i + mean_j u_j) / 2; head h_i = Wh u_i, tail t_i = Wt u_i.
    Neighbours J_i: the best j by s_ij = h_i . t_j / sqrt(hidden), i itself allowed; p_ij = softmax over J_i of s_ij.
    Edges: r_ij = p_ij t_j + (1 - p_ij) h_i; gate g_ij = tanh(h_i + r_ij); score e_ij = t_j . g_ij;
    n_i = sum_j softmax over J_i of (e_ij) t_j.
    Readout: v_i = drop(LeakyReLU(W1 (h_i + n_i)) + LeakyReLU(W2 (h_i * n_i))); beta = softmax over patches of
    b LeakyReLU(Wa v_i); logits = Wc LN(sum_i beta_i v_i).

    score: "dot", as above, or "sums", (sum_c t_jc) (sum_c g_ijc), which the released code computes. readout:
    "attention" or "mean".
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        bag_loss: BagLoss,
        num_neighbours: int = 6,
        score: str = "dot",
        readout: str = "attention",
        dropout: float = 0.0,
        hidden: int = HIDDEN,
    ):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(feature_dim, hidden), nn.LeakyReLU())
        self.head = nn.Linear(hidden, hidden)
        self.tail = nn.Linear(hidden, hidden)
        self.sum_message = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU())
        self.product_message = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU())
        self.dropout = nn.Dropout(dropout)
        self.attention = (
            nn.Sequential(nn.Linear(hidden, hidden // 2), nn.LeakyReLU(), nn.Linear(hidden // 2, 1))
            if readout == "attention"
            else None
        )
        self.norm = nn.LayerNorm(hidden)
        self.classify = nn.Linear(hidden, num_classes)
        self.bag_loss = bag_loss
        self.num_neighbours = num_neighbours
        self.score = score

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details: neighbours (N, num_neighbours), best first; with the attention readout attention and
        attention_raw (1, N)."""
        nodes = self.embed(bag.patches)
        nodes = (nodes + nodes.mean(0)) / 2
        head, tail = self.head(nodes), self.tail(nodes)
        neighbours = nearest(head, tail, self.num_neighbours)
        message = self._message(head, tail, neighbours)
        nodes = self.dropout(self.sum_message(head + message) + self.product_message(head * message))
        details = {"neighbours": neighbours}
        if self.attention is None:
            slide = nodes.mean(0)
        else:
            raw = self.attention(nodes).t()
            attention = raw.softmax(1)
            slide = (attention @ nodes).squeeze(0)
            details |= {"attention": attention.detach(), "attention_raw": raw.detach()}
        logits = self.classify(self.norm(slide))
        loss = slide_loss(self.bag_loss, logits, bag.label)
        return ModelOutput(logits, loss, {} if loss is None else {"bag": loss}, details=details)

    def _message(self, head: Tensor, tail: Tensor, neighbours: Tensor) -> Tensor:
        """n_i of every node: (N, hidden)."""
        tails = tail[neighbours]
        own = head.unsqueeze(1)
        similarity = (own @ tails.transpose(1, 2)).squeeze(1) * tails.shape[-1] ** -0.5
        share = similarity.softmax(1).unsqueeze(2)
        gate = (own + share * tails + (1 - share) * own).tanh()
        score = (tails * gate).sum(2) if self.score == "dot" else tails.sum(2) * gate.sum(2)
        message: Tensor = score.softmax(1).unsqueeze(1) @ tails
        return message.squeeze(1)


@torch.no_grad()
def nearest(head: Tensor, tail: Tensor, number: int) -> Tensor:
    """For each head (N, hidden) the ``number`` tails (all, where there are fewer) of largest dot product, best first:
    (N, number) int64. Found by blocks of rows, so that memory stays linear in N."""
    block = max(1, SCORES_AT_ONCE // len(tail))
    number = min(number, len(tail))
    return torch.cat([(rows @ tail.t()).topk(number).indices for rows in head.split(block)])


def _build(config: Config, inputs: Inputs) -> WiKG:
    """``--variant released``: the neighbour score that the released code computes."""
    return WiKG(
        inputs.feature_dim,
        inputs.num_classes,
        bag_loss(config, inputs),
        config.num_neighbours,
        "sums" if config.variant == "released" else "dot",
        config.readout,
        DROPOUT if config.drop_out else 0.0,
    )


KIND = Kind(_build)
