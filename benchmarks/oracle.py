"""The whole model the slow way, as the authors' released code runs it: for tests of the fast one, and to time it.

Every prompt is encoded for every slide with its padding, the graph is a HeteroData with edge lists, the convolutions
are PyTorch Geometric's, and attention is dense, masked where the method has edges, its weights kept. The parameters are
those of the model it stands for. CLIP towers, the options of the published setting.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from models.hive_mil import HiveMIL
from utils.interface import Bag

TEXTS = {"low_image": "low_text", "high_image": "high_text"}
RELATIONS = (  # receiver, sender
    ("image_up", "low_image", "high_image"),
    ("image_down", "high_image", "low_image"),
    ("text_up", "low_text", "high_text"),
    ("text_down", "high_text", "low_text"),
)


class Oracle:
    """Gives (logits (K,), loss) of a bag for a paper or released HiveMIL.

    keep_texts: encode the prompts once, as for an evaluation whose texts are cached.
    """

    def __init__(self, model: HiveMIL, is_released: bool = False, alpha: float = 0.5, keep_texts: bool = False):
        self.model, self.is_released, self.alpha = model, is_released, alpha
        self.num_classes = model.head.num_classes
        self.scale = model.prompts.tower.logit_scale
        self.texts = self.encode() if keep_texts else None

    def __call__(self, bag: Bag) -> tuple[Tensor, Tensor]:
        low_text, high_text = self.texts or self.encode()
        data = (
            self._released_graph(bag, low_text, high_text)
            if self.is_released
            else self._graph(bag, low_text, high_text)
        )
        nodes = data.x_dict
        layers: Any = self.model.network.layers
        for index, layer in enumerate(layers):
            attended = (
                self._released_attention(layer, nodes) if self.is_released else self._attention(layer, nodes, data)
            )
            received = self._convolution(layer, nodes, data)
            factor = 2 if self.is_released else 1
            nodes = {name: factor * x + attended[name] + received[name] for name, x in nodes.items()}
            if index == 0:
                nodes = {name: x.relu() for name, x in nodes.items()}
        nodes = {name: x / x.norm(dim=1, keepdim=True) for name, x in nodes.items()}
        logits = torch.zeros(self.num_classes, device=self.scale.device)
        for images, top_k in (("low_image", 2), ("high_image", 100)):
            similarity = nodes[images] @ nodes[TEXTS[images]].t() * self.scale
            best = similarity.sort(dim=0, descending=True).values[:top_k].mean(0)
            logits = logits + best.view(self.num_classes, -1).mean(1)
        label = torch.tensor([bag.label], device=logits.device)
        text_loss = self._text_loss(nodes["low_text"], nodes["high_text"])
        return logits, F.cross_entropy(logits.unsqueeze(0), label) + self.model.contrastive_weight * text_loss

    def encode(self) -> tuple[Tensor, Tensor]:
        """Every token of every prompt through the tower, a class at a time."""
        prompts: Any = self.model.prompts
        clip = prompts.tower.text_model
        embeddings = prompts.prompt_embeddings() + clip.embeddings.position_embedding.weight
        ends = (prompts.token_ids == prompts.tower.tokenizer.eos_id).int().argmax(1)
        if self.is_released:  # where the end token was before the context's second half was put behind it
            ends = ends + (prompts.context_positions > ends.unsqueeze(1)).sum(1)
        low, high = [], []
        for x, end in zip(embeddings.chunk(self.num_classes), ends.chunk(self.num_classes), strict=True):
            if self.is_released:
                x = clip.encoder(inputs_embeds=x.transpose(0, 1)).last_hidden_state.transpose(0, 1)
            else:
                x = clip.encoder(inputs_embeds=x, is_causal=True).last_hidden_state
            x = clip.final_layer_norm(x)[torch.arange(len(x)), end]
            weight = prompts.tower.text_projection.weight
            x = x @ weight if self.is_released else x @ weight.t()
            low.append(x[: prompts.num_low])
            high.append(x[prompts.num_low :])
        return torch.cat(low), torch.cat(high)

    def _graph(self, bag: Bag, low_text: Tensor, high_text: Tensor) -> HeteroData:
        """TGDF as published, over real children only."""
        low_similarity = F.normalize(bag.low_features, dim=1) @ F.normalize(low_text, dim=1).t()
        keep_low = low_similarity >= low_similarity.mean(0) + self.alpha * low_similarity.std(0)
        parent, slot = (bag.child_mask & keep_low.any(1, keepdim=True)).nonzero(as_tuple=True)
        high_image = bag.high_features[parent, slot]
        allowed = keep_low[parent].repeat_interleave(len(high_text) // len(low_text), dim=1)
        high_similarity = F.normalize(high_image, dim=1) @ F.normalize(high_text, dim=1).t() * allowed
        keep_high = (high_similarity >= high_similarity.mean(0) + self.alpha * high_similarity.std(0)) & allowed
        return self._hetero_data(bag.low_features, high_image, low_text, high_text, keep_low, keep_high, parent)

    def _released_graph(self, bag: Bag, low_text: Tensor, high_text: Tensor) -> HeteroData:
        """TGDF as released: scaled products, padding and all."""

        def filtered(images: Tensor, texts: Tensor) -> Tensor:
            x = images @ texts.t() * self.scale.exp()
            x = (x - x.min(0).values) / (x.max(0).values - x.min(0).values + 1e-8)
            return torch.where(x < x.mean(0) + self.alpha * x.std(0), 0.0, x)

        low_values = filtered(bag.low_features, low_text)
        parent = (low_values.mean(1) > 0).nonzero().squeeze(1).repeat_interleave(bag.child_mask.shape[1])
        high_image = bag.high_features[low_values.mean(1) > 0].flatten(0, 1)
        keep_high = filtered(high_image, high_text) != 0
        return self._hetero_data(bag.low_features, high_image, low_text, high_text, low_values != 0, keep_high, parent)

    @staticmethod
    def _hetero_data(
        low_image: Tensor, high_image: Tensor, low_text: Tensor, high_text: Tensor, keep_low: Tensor, keep_high: Tensor,
        parent: Tensor,
    ) -> HeteroData:  # fmt: skip
        data = HeteroData()
        data["low_image"].x, data["high_image"].x = low_image, high_image
        data["low_text"].x, data["high_text"].x = low_text, high_text
        data.parent, data.num_subtexts = parent, len(high_text) // len(low_text)
        for images, keep in (("low_image", keep_low), ("high_image", keep_high)):
            data[images, "intra", TEXTS[images]].edge_index = keep.nonzero().t()
            data[TEXTS[images], "intra", images].edge_index = keep.nonzero().t().flip(0)
        return data

    @staticmethod
    def _convolution(layer: Any, nodes: dict[str, Tensor], data: HeteroData) -> dict[str, Tensor]:
        convolutions = {}
        for edge_type in data.edge_types:
            sage = layer.intra.relations[edge_type[2]]
            convolution = SAGEConv(*sage.root.weight.shape)
            convolution.lin_l.weight, convolution.lin_l.bias = sage.neighbour.weight, sage.neighbour.bias
            convolution.lin_r.weight = sage.root.weight
            convolutions[edge_type] = convolution
        found: dict[str, Tensor] = HeteroConv(convolutions, aggr="sum")(nodes, data.edge_index_dict)
        return found

    @staticmethod
    def _attention(layer: Any, nodes: dict[str, Tensor], data: HeteroData) -> dict[str, Tensor]:
        """Dense attention of every node over all nodes of the other scale, all but its own relatives masked."""
        text_parent = torch.arange(len(nodes["high_text"])) // data.num_subtexts
        messages = {}
        for relation, receiver, sender in RELATIONS:
            parent = (data.parent if "image" in relation else text_parent).to(nodes[receiver].device)
            parents = torch.arange(len(nodes[receiver if relation.endswith("up") else sender]), device=parent.device)
            related = parents.unsqueeze(1) == parent
            related = related if relation.endswith("up") else related.t()
            part, scales = layer.hierarchy.relations[relation], layer.hierarchy.scales
            own_scale, other_scale = scales if relation.endswith("up") else scales.flip(0)
            some = related.any(1)  # softmax over nothing is not defined
            unused = torch.zeros_like(part.value.weight)  # a child's one weight is 1, whatever its query
            query, key = (nodes[receiver] + own_scale)[some], nodes[sender] + other_scale
            message, _ = F.multi_head_attention_forward(
                query, key, key, query.shape[1], 2, None, None, None, None, False, 0.0, part.output.weight, None,
                need_weights=True, attn_mask=~related[some], use_separate_proj_weight=True,
                q_proj_weight=unused if part.query is None else part.query.weight,
                k_proj_weight=unused if part.key is None else part.key.weight,
                v_proj_weight=part.value.weight,
            )  # fmt: skip
            messages[receiver] = torch.zeros_like(nodes[receiver]).index_put((some.nonzero().squeeze(1),), message)
        return messages

    @staticmethod
    def _released_attention(layer: Any, nodes: dict[str, Tensor]) -> dict[str, Tensor]:
        messages, attention = {}, layer.attention
        for relation, receiver, sender in RELATIONS:
            own_scale, other_scale = (
                attention.scales.weight if relation.endswith("up") else attention.scales.weight.flip(0)
            )
            query = attention.query[relation](nodes[receiver] + own_scale)
            key = attention.key[relation](nodes[sender] + other_scale)
            messages[receiver], _ = attention.attention(query, key, key)
        return messages

    def _text_loss(self, low_text: Tensor, high_text: Tensor) -> Tensor:
        num_low, num_high = len(low_text), len(high_text)
        if self.is_released:
            anchors = high_text.view(num_low, -1, high_text.shape[1]).mean(1)
            return -F.cosine_similarity(anchors, low_text).sigmoid().log().mean()
        similarity = F.cosine_similarity(high_text.unsqueeze(1), low_text.unsqueeze(0), dim=-1)
        classes = [torch.arange(number) // (number // self.num_classes) for number in (num_high, num_low)]
        same = (classes[0].unsqueeze(1) == classes[1]).to(similarity.device)
        pull = -(similarity.sigmoid().log() * same).sum(1) / same.sum(1)
        push = -((-similarity).sigmoid().log() * ~same).sum(1) / (~same).sum(1)
        return (pull + push).mean()
