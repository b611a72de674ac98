"""HiVE-MIL's forward pass written from the paper's equations, node by node and edge by edge, to hold the project's own
against it. It takes the weights and the frozen text tower from a model, and computes nothing with the project's code.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.config import Config
from utils.interface import Bag

Nodes = dict[str, Tensor]  # by node type, (N, D)
SCALE = {"low_image": 0, "low_text": 0, "high_image": 1, "high_text": 1}


class Setting(NamedTuple):
    """What the forward pass is of; the texts are those of all classes, the tokenizer is open_clip's."""

    config: Config
    tokenizer: Any
    low_texts: list[str]
    high_texts: list[str]
    num_classes: int


def texts_of(model: Any, setting: Setting, scale: int) -> Tensor:
    """Equation 1: [v_1] ... [v_L] [text], each through the frozen CLIP tower by itself; (T, D)."""
    prompts, config = model.prompts, setting.config
    texts = setting.high_texts if scale else setting.low_texts
    clip = prompts.tower.text_model
    features = []
    for number, text in enumerate(texts):
        context = prompts.scale_context_tokens[scale] if config.context_per_scale else prompts.context_tokens
        if config.class_specific_token:
            context = context[number // (len(texts) // setting.num_classes)]
        words = setting.tokenizer.encode(" ".join([*["X"] * len(context), text]))
        ids = torch.tensor([setting.tokenizer.sot_token_id, *words, setting.tokenizer.eot_token_id])
        x = clip.embeddings.token_embedding(ids)
        x = torch.cat([x[:1], context, x[1 + len(context) :]]) + clip.embeddings.position_embedding.weight[: len(ids)]
        x = clip.final_layer_norm(clip.encoder(inputs_embeds=x.unsqueeze(0), is_causal=True).last_hidden_state)[0, -1]
        features.append(prompts.tower.text_projection.weight @ x)
    return torch.stack(features)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.unsqueeze(1), b.unsqueeze(0), dim=-1)


def over_threshold(similarity: Tensor, alpha: float) -> Tensor:
    return similarity >= similarity.mean(0) + alpha * similarity.std(0)


def graph_of(
    setting: Setting, bag: Bag, low_text: Tensor, high_text: Tensor
) -> tuple[Nodes, dict[str, Tensor], Tensor]:
    """Equations 2 to 5: the nodes, the adjacency (receivers, senders) of the relations by name, each child's parent."""
    config, per_low = setting.config, len(high_text) // len(low_text)
    keep_low = torch.ones(len(bag.low_features), len(low_text), dtype=torch.bool)
    if config.tgdf in ("full", "no_mask_propagation") and config.instances != "high":
        keep_low = over_threshold(cosines(bag.low_features, low_text), config.filter_alpha)
    children = [
        (n, m)
        for n in range(len(bag.low_features))
        for m in range(bag.child_mask.shape[1])
        if bag.child_mask[n, m] and keep_low[n].any() and config.instances != "low"
    ]
    parent = torch.tensor([n for n, _ in children], dtype=torch.long)
    high_image = torch.stack([bag.high_features[n, m] for n, m in children]) if children else bag.low_features[:0]
    keep_high = torch.ones(len(children), len(high_text), dtype=torch.bool)
    if config.tgdf != "none" and children:
        mask = keep_high.clone()
        if config.tgdf == "full" and config.instances != "high":
            mask = torch.stack([keep_low[n].repeat_interleave(per_low) for n in parent.tolist()])
        keep_high = over_threshold(cosines(high_image, high_text) * mask, config.filter_alpha) & mask
    if config.instances == "high":
        keep_low = torch.zeros_like(keep_low)
    nodes = {"low_image": bag.low_features, "high_image": high_image, "low_text": low_text, "high_text": high_text}
    own = F.one_hot(parent, len(bag.low_features)).bool() if children else torch.zeros(0, len(bag.low_features)).bool()
    own_text = F.one_hot(torch.arange(len(high_text)) // per_low, len(low_text)).bool()
    adjacency = {
        "low_image": keep_low, "low_text": keep_low.t(), "high_image": keep_high, "high_text": keep_high.t(),
        "image_up": own.t(), "image_down": own, "text_up": own_text.t(), "text_down": own_text,
    }  # fmt: skip
    return nodes, adjacency


def sage(part: Any, receivers: Tensor, senders: Tensor, adjacency: Tensor) -> Tensor:
    """W_neigh mean(neighbours) + b + W_root h_v; without neighbours the mean is 0."""
    rows = []
    for h, near in zip(receivers, adjacency, strict=True):
        mean = senders[near].mean(0) if near.any() else torch.zeros_like(h)
        rows.append(part.neighbour.weight @ mean + part.neighbour.bias + part.root.weight @ h)
    return torch.stack(rows) if rows else receivers


def attention(part: Any, receivers: Tensor, senders: Tensor, adjacency: Tensor) -> Tensor:
    """Equation 6 without its residual: softmax over v's neighbours in two heads, joined by W_o."""
    rows = []
    for h, near in zip(receivers, adjacency, strict=True):
        neighbours = senders[near]
        if not len(neighbours):
            rows.append(torch.zeros_like(h))
            continue
        values = (neighbours @ part.value.weight.t()).chunk(2, dim=1)
        mixed = []
        for head, value in enumerate(values):
            weights = torch.ones(len(neighbours)) / len(neighbours)  # of one parent: 1
            if part.query is not None:
                query = (part.query.weight @ h).chunk(2)[head]
                key = (neighbours @ part.key.weight.t()).chunk(2, dim=1)[head]
                weights = torch.softmax(key @ query / len(query) ** 0.5, dim=0)
            mixed.append(weights @ value)
        rows.append(part.output.weight @ torch.cat(mixed))
    return torch.stack(rows) if rows else receivers


def perceptron(part: Any, nodes: Tensor) -> Tensor:
    return F.relu(nodes @ part.hidden.weight.t() + part.hidden.bias) @ part.output.weight.t() + part.output.bias


OTHER = {"low_image": "low_text", "low_text": "low_image", "high_image": "high_text", "high_text": "high_image"}
HIERARCHY = {
    "image_up": ("low_image", "high_image"), "image_down": ("high_image", "low_image"),
    "text_up": ("low_text", "high_text"), "text_down": ("high_text", "low_text"),
}  # fmt: skip


def layer_of(layer: Any, setting: Setting, nodes: Nodes, adjacency: dict[str, Tensor]) -> Nodes:
    """h_v = h_v^intra + h_v^hier."""
    config, updated = setting.config, {}
    for name, other in OTHER.items():
        part = layer.intra.relations[name]
        if config.intra_aggregator == "graph":
            updated[name] = sage(part, nodes[name], nodes[other], adjacency[name])
        elif config.intra_aggregator == "mlp":
            updated[name] = perceptron(part, nodes[name])
        else:
            updated[name] = nodes[name] + attention(part, nodes[name], nodes[other], adjacency[name])
    if config.instances != "both" or config.hier_direction == "none":
        return updated
    if config.hier_aggregator not in ("sage", "mlp"):
        updated = {name: h + nodes[name] for name, h in updated.items()}
    scaled = dict(nodes)
    if config.hier_aggregator in ("msa", "saa"):
        scaled = {name: h + layer.hierarchy.scales[SCALE[name]] for name, h in nodes.items()}
    for relation, (receiver, sender) in HIERARCHY.items():
        if config.hier_direction not in ("both", relation.split("_")[1]):
            continue
        part = layer.hierarchy.relations[relation]
        if config.hier_aggregator == "mlp":
            message = perceptron(part, nodes[receiver])
        elif config.hier_aggregator == "sage":
            message = sage(part, nodes[receiver], nodes[sender], adjacency[relation])
        else:
            message = attention(part, scaled[receiver], scaled[sender], adjacency[relation])
        updated[receiver] = updated[receiver] + message
    return updated


def paper_forward(model: Any, setting: Setting, bag: Bag) -> tuple[Tensor, Tensor]:
    """Logits (K,) and the loss of a labelled slide."""
    config = setting.config
    low_text, high_text = (texts_of(model, setting, scale) for scale in (0, 1))
    with torch.no_grad():
        nodes, adjacency = graph_of(setting, bag, low_text, high_text)
    nodes |= {"low_text": low_text, "high_text": high_text}
    first, last = model.network.layers
    nodes = {name: F.relu(h) for name, h in layer_of(first, setting, nodes, adjacency).items()}
    nodes = {name: F.normalize(h, dim=1) for name, h in layer_of(last, setting, nodes, adjacency).items()}
    logits = torch.zeros(setting.num_classes)
    scales = config.scales if config.instances == "both" else config.instances
    for scale, top_k in (("low", config.top_k_low), ("high", config.top_k_high)):  # Equation 7
        if scales in ("both", scale):
            similarity = nodes[f"{scale}_image"] @ nodes[f"{scale}_text"].t()
            best = similarity.sort(dim=0, descending=True).values[:top_k].mean(0)
            logits = logits + model.prompts.tower.logit_scale * best.view(setting.num_classes, -1).mean(1)
    loss = F.cross_entropy(logits.unsqueeze(0), torch.tensor([bag.label]))
    if config.htcl == "class_wise" and config.instances == "both":  # Equations 8 and 9
        terms = []
        num_low, num_high = (len(nodes[name]) // setting.num_classes for name in ("low_text", "high_text"))
        for s, anchor in enumerate(nodes["high_text"]):
            near = [o for o in range(len(nodes["low_text"])) if o // num_low == s // num_high]
            far = [o for o in range(len(nodes["low_text"])) if o // num_low != s // num_high]
            alike = torch.stack([F.cosine_similarity(anchor, low, dim=0) for low in nodes["low_text"]])
            terms.append(-F.logsigmoid(alike[near]).mean() - F.logsigmoid(-alike[far]).mean())
        loss = loss + config.contrastive_lambda * torch.stack(terms).mean()
    return logits, loss
