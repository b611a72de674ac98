"""Brute-force twins of the paper variant's parts: slow loops over nodes, pairs and heads, an oracle for the tests.

Written from the method page alone and importing nothing of the project. The tensor functions compute in the dtype of
their inputs and are differentiable wherever the method is. Shape letters: P parents, C child slots per parent,
K classes, O low texts per class, S high texts per low text, D feature width, N and M any number of nodes.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

EPS = 1e-12  # lower bound of a norm that is divided by


def _unit(vector: Tensor) -> Tensor:
    """One vector (D,) divided by its length; a zero vector stays zero."""
    norm: Tensor = torch.linalg.vector_norm(vector)
    return vector / norm.clamp(min=EPS)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of two vectors (D,), a scalar."""
    return torch.dot(_unit(first), _unit(second))


def _stack(rows: list[Tensor], like: Tensor) -> Tensor:
    """Stack rows (D,) into (N, D); no rows give (0, D) with D, dtype and device taken from `like`."""
    return torch.stack(rows) if rows else like.new_zeros(0, like.shape[-1])


def sage(
    node_features: Tensor,
    neighbour_features: Tensor,
    adjacency: Tensor,
    weight_neighbour: Tensor,
    bias: Tensor,
    weight_root: Tensor,
) -> Tensor:
    """HiVE-MIL, section on message passing, intra-scale GraphSAGE along one directed relation.

    "W_neigh * mean(neighbours) + b + W_root * h_v; a node without neighbours gets b + W_root * h_v."

    node_features (N, D), neighbour_features (M, D), adjacency (N, M) bool, weights (D, D) applied as x @ W.T,
    bias (D,). Returns (N, D).
    """
    rows: list[Tensor] = []
    for node in range(node_features.shape[0]):
        row = bias + node_features[node] @ weight_root.T
        neighbours = [other for other in range(neighbour_features.shape[0]) if adjacency[node, other]]
        if neighbours:
            total = neighbour_features[neighbours[0]]
            for other in neighbours[1:]:
                total = total + neighbour_features[other]
            row = row + (total / len(neighbours)) @ weight_neighbour.T
        rows.append(row)
    return _stack(rows, node_features)


def msa(
    queries: Tensor,
    keys: Tensor,
    adjacency: Tensor,
    scale_query: Tensor,
    scale_key: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    num_heads: int,
) -> Tensor:
    """HiVE-MIL, section on message passing, modality-scale attention along one directed parent-child relation.

    "q = W_q (h_v + s_v), k = W_k (h_u + s_u), v = W_v (h_u + s_u) with a learned embedding s per scale; softmax over
    v's own neighbours in that relation, scaled by sqrt(head width); heads concatenated and projected by W_o."
    A head is a block of D / num_heads consecutive columns. A node without neighbours gets zero.

    queries (N, D): the receiving nodes; keys (M, D): the sending nodes; adjacency (N, M) bool; scale_query and
    scale_key (D,); the four projections (D, D) without biases, applied as x @ W.T. Returns (N, D).
    """
    width = queries.shape[-1]
    if width % num_heads != 0:
        raise ValueError(f"width {width} does not divide into {num_heads} heads")
    head_width = width // num_heads
    rows: list[Tensor] = []
    for node in range(queries.shape[0]):
        neighbours = [other for other in range(keys.shape[0]) if adjacency[node, other]]
        if not neighbours:
            rows.append(torch.zeros_like(queries[node]))
            continue
        query = (queries[node] + scale_query) @ w_q.T
        heads: list[Tensor] = []
        for head in range(num_heads):
            columns = slice(head * head_width, (head + 1) * head_width)
            scores: list[Tensor] = []
            values: list[Tensor] = []
            for other in neighbours:
                key = (keys[other] + scale_key) @ w_k.T
                value = (keys[other] + scale_key) @ w_v.T
                scores.append(torch.dot(query[columns], key[columns]) / math.sqrt(head_width))
                values.append(value[columns])
            weights = torch.softmax(torch.stack(scores), dim=0)
            mixed = weights[0] * values[0]
            for position in range(1, len(neighbours)):
                mixed = mixed + weights[position] * values[position]
            heads.append(mixed)
        rows.append(torch.cat(heads) @ w_o.T)
    return _stack(rows, queries)


def update(node: Tensor, sage_term: Tensor, msa_term: Tensor, is_last: bool) -> Tensor:
    """HiVE-MIL, section on message passing, the node update of one layer.

    "h_v <- SAGE(v) + (h_v + MSA(v)), ReLU after layer 1, L2 normalisation after layer 2."

    node, sage_term and msa_term (N, D); is_last picks the normalisation instead of the ReLU. Returns (N, D).
    """
    rows: list[Tensor] = []
    for index in range(node.shape[0]):
        row = sage_term[index] + (node[index] + msa_term[index])
        rows.append(_unit(row) if is_last else torch.relu(row))
    return _stack(rows, node)


def top_k_logits(
    image_embeddings: Tensor, text_embeddings: Tensor, num_classes: int, top_k: int, logit_scale: float
) -> Tensor:
    """HiVE-MIL, section on logits, one scale.

    "Similarity of image and text nodes (unit vectors); per text the mean of its top-k images (or all when fewer);
    times the VLM's raw logit_scale; mean over a class's texts."

    image_embeddings (N, D), text_embeddings (T, D) class-major. Returns (K,), zeros where N = 0.
    """
    num_images = image_embeddings.shape[0]
    texts_per_class = text_embeddings.shape[0] // num_classes
    if num_images == 0:
        return text_embeddings.new_zeros(num_classes)
    logits: list[Tensor] = []
    for class_index in range(num_classes):
        total = text_embeddings.new_zeros(())
        for text in range(class_index * texts_per_class, (class_index + 1) * texts_per_class):
            similarities = [cosine(image_embeddings[i], text_embeddings[text]) for i in range(num_images)]
            best = torch.sort(torch.stack(similarities), descending=True).values[:top_k]
            total = total + logit_scale * best.mean()
        logits.append(total / texts_per_class)
    return torch.stack(logits)


def htcl(low_texts: Tensor, high_texts: Tensor, num_classes: int, variant: str) -> Tensor:
    """HiVE-MIL, section on losses, hierarchical text contrastive loss on the final text nodes.

    "Class-wise: for every high text s, with cosine sim to every low text o, positives = low texts of the same class,
    negatives = those of the other classes: mean_s [-mean_pos log sigmoid(sim) - mean_neg log sigmoid(-sim)].
    None; instance-wise (positive = own parent, negatives = all other low texts); share-parent (as instance-wise, the
    anchor being the mean of the high texts of one parent)."

    low_texts (K*O, D), high_texts (K*O*S, D); variant "class_wise", "instance_wise", "share_parent" or "none".
    Returns a scalar. An anchor without negatives has no negative term; "none" is zero.
    """
    if variant not in ("class_wise", "instance_wise", "share_parent", "none"):
        raise ValueError(f"unknown contrastive loss {variant!r}")
    if variant == "none":
        return low_texts.new_zeros(())
    num_low = low_texts.shape[0]
    texts_per_class = num_low // num_classes
    num_subtexts = high_texts.shape[0] // num_low

    anchors: list[tuple[Tensor, int]] = []  # the vector and the index of its parent text
    if variant == "share_parent":
        for parent_text in range(num_low):
            total = high_texts[parent_text * num_subtexts]
            for offset in range(1, num_subtexts):
                total = total + high_texts[parent_text * num_subtexts + offset]
            anchors.append((total / num_subtexts, parent_text))
    else:
        anchors = [(high_texts[text], text // num_subtexts) for text in range(high_texts.shape[0])]

    losses: list[Tensor] = []
    for anchor, parent_text in anchors:
        positives: list[Tensor] = []
        negatives: list[Tensor] = []
        for low_text in range(num_low):
            similarity = cosine(anchor, low_texts[low_text])
            if variant == "class_wise":
                is_positive = low_text // texts_per_class == parent_text // texts_per_class
            else:
                is_positive = low_text == parent_text
            if is_positive:
                positives.append(logsigmoid(similarity))
            else:
                negatives.append(logsigmoid(-similarity))
        loss = -torch.stack(positives).mean()
        if negatives:
            loss = loss - torch.stack(negatives).mean()
        losses.append(loss)
    return torch.stack(losses).mean()


def hits_at_2(
    low_image: Tensor,
    low_text: Tensor,
    high_image: Tensor,
    child_mask: Tensor,
    high_text: Tensor,
    num_subtexts: int,
) -> tuple[int, int]:
    """HiVE-MIL, Algorithm 2, Hit Ratio@2: hits, and the low patches they are divided by.

    "For every low patch n = 1..N (denominator N, all low patches): two most similar low texts; candidates = their
    children; hit if for ANY of its M children the arg-max high text is a candidate."

    low_image (P, D), low_text (K*O, D), high_image (P, C, D), child_mask (P, C) bool, high_text (K*O*S, D). Cosine
    similarity; of equal ones the smaller text index goes first.
    """
    num_hits = 0
    for parent in range(child_mask.shape[0]):
        children = [slot for slot in range(child_mask.shape[1]) if child_mask[parent, slot]]
        if not children:
            continue
        low_similarities = [cosine(low_image[parent], text).item() for text in low_text]
        best_two = sorted(range(len(low_similarities)), key=lambda text: -low_similarities[text])[:2]
        is_hit = False
        for slot in children:
            high_similarities = [cosine(high_image[parent, slot], text).item() for text in high_text]
            best = high_similarities.index(max(high_similarities))
            if best // num_subtexts in best_two:
                is_hit = True
        num_hits += int(is_hit)
    return num_hits, child_mask.shape[0]
