"""The released code's checkpoint layout: our parameter names to its names."""

from models.hive_mil import HiveMIL
from models.released.text_encoding import released_reading
from models.vlms import TextSide

_NODE = {"low_image": "x5image", "high_image": "x20image", "low_text": "x5text", "high_text": "x20text"}
_SENDER = {"low_image": "low_text", "high_image": "high_text", "low_text": "low_image", "high_text": "high_image"}
_SCALE = {"low_image": "x5", "low_text": "x5", "high_image": "x20", "high_text": "x20"}
_RELATION = {
    "image_up": "hier_x20tox5_image",
    "image_down": "hier_x5tox20_image",
    "text_up": "hier_x20tox5_text",
    "text_down": "hier_x5tox20_text",
}


def _prefixes(tower: TextSide, num_layers: int) -> dict[str, str]:
    """Released name by our name, for every module or tensor that a released checkpoint holds."""
    names = {
        "prompts.tower.logit_scale": "logit_scale",
        "prompts.context_tokens": "prompt_learner.ctx",
    }
    of_tower = released_reading(tower).checkpoint_names
    names |= {f"prompts.tower.{ours}": f"text_encoder.{theirs}" for ours, theirs in of_tower.items()}
    for index in range(num_layers):
        ours, theirs = f"network.layers.{index}", f"graph_prompt_learner.layer{index + 1}"
        for node, sender in _SENDER.items():
            intra = f"<{_NODE[sender]}___{_SCALE[node]}_intra___{_NODE[node]}>"
            own = f"<{_NODE[node]}___self___{_NODE[node]}>"
            for sage, conv in ((f"intra.relations.{node}", intra), (f"unused_self.{node}", own)):
                names[f"{ours}.{sage}.neighbour"] = f"{theirs}.convs.convs.{conv}.lin_l"
                names[f"{ours}.{sage}.root"] = f"{theirs}.convs.convs.{conv}.lin_r"
        names[f"{ours}.attention.scales"] = f"{theirs}.attn.scale_embeddings"
        names[f"{ours}.attention.attention"] = f"{theirs}.attn.mha"
        for relation, released in _RELATION.items():
            names[f"{ours}.attention.query.{relation}"] = f"{theirs}.attn.q_projs.{released}"
            names[f"{ours}.attention.key.{relation}"] = f"{theirs}.attn.k_projs.{released}"
    return {ours: f"custom_vlm.{theirs}" for ours, theirs in names.items()}


def released_names(model: HiveMIL) -> dict[str, str]:
    """The tensors of a released checkpoint: {our name: released name}. What it lacks (the token embeddings, CONCH's
    class embedding) stays as the vision-language model has it."""
    prefixes = _prefixes(model.prompts.tower, len(model.network.layers))
    return {
        tensor: theirs + tensor.removeprefix(ours)
        for tensor in model.state_dict()
        for ours, theirs in prefixes.items()
        if tensor == ours or tensor.startswith(f"{ours}.")
    }
