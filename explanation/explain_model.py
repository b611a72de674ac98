"""What a HiVE-MIL model has to say of a slide, from one forward pass."""

import numpy as np
import torch
from torch import Tensor

from explanation.contributions import Explanation, explain_scale
from models.filtering import cosine_similarity
from models.hive_mil import HiveMIL
from training.metrics import hits_at_2
from utils.interface import Bag


@torch.no_grad()
def explain(model: HiveMIL, bag: Bag) -> Explanation:
    """Explain the logits of a slide; the model is in evaluation mode, the bag on its device.

    Memory is that of a forward pass and numbers by patch and text.
    """
    low_text, high_text = (text.to(bag.low_features.dtype) for text in model.prompts())
    graph = model.graph(bag)
    retained, keep_low, keep_high = graph.retained, graph.keep_low, graph.keep_high
    del graph  # it holds a copy of the children, and the model makes its own
    output = model(bag, attention=True)
    nodes = output.embeddings
    assert nodes is not None
    num_parents = len(bag.low_features)

    def of_all(values: Tensor) -> Tensor:
        """(R, ...) of the retained parents -> (P, ...), 0 for the others."""
        return values.new_zeros(num_parents, *values.shape[1:]).index_copy(0, retained, values)

    head, scale = model.head, float(model.prompts.tower.logit_scale)
    is_parent = torch.ones(num_parents, dtype=torch.bool, device=retained.device)
    in_graph = of_all(nodes.child_mask)
    low = explain_scale(
        cosine_similarity(bag.low_features, low_text),
        nodes.low_image @ nodes.low_text.t(),
        keep_low, is_parent, is_parent & keep_low.any(), head.num_classes, scale * ("low" in head.scales),
        head.top_k["low"],
    )  # fmt: skip
    high = explain_scale(
        cosine_similarity(bag.high_features, high_text),
        of_all(nodes.high_image @ nodes.high_text.t()),
        of_all(keep_high), bag.child_mask, in_graph, head.num_classes, scale * ("high" in head.scales),
        head.top_k["high"],
    )  # fmt: skip
    hits, patches = hits_at_2(nodes, bag.child_mask)
    outside = ~(in_graph & bag.child_mask)
    attention = [of_all(layer).masked_fill(outside, float("nan")) for layer in output.details["image_attention"]]
    return Explanation(
        low,
        high,
        output.logits.float().cpu().numpy(),
        hits / patches if output.has_hierarchy() and bag.child_mask.any() else float("nan"),
        torch.stack(attention).cpu().numpy() if attention else np.zeros((0, *outside.shape)),
        output.details["text_attention"].cpu().numpy(),
    )
