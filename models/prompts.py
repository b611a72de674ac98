"""Prompts with learnable context: context tokens + description through the frozen text tower."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from models.prompt_checks import check_texts
from models.vlms import TextSide
from utils.errors import Fault, UserError

PLACEHOLDER = "X"
SHARED_CONTEXT, SCALE_CONTEXT = "context_tokens", "scale_context_tokens"


def check_room(num_context_tokens: int, room: int) -> None:
    """Raises UserError where the context leaves no room for a description. room: the most tokens of a prompt that are
    read, the special ones apart."""
    if num_context_tokens > room - 1:
        raise UserError(
            Fault(
                "prompt.no_room",
                f"--num_context_tokens {num_context_tokens}",
                "the context leaves no room for a description",
                expected=f"at most {room - 1}, the text tower reads {room} tokens beside those of start and end",
            )
        )


def tokens_behind(
    tokenize: Callable[[list[str]], list[list[int]]], descriptions: list[str], before: int
) -> tuple[list[int], list[list[int]]]:
    """Token ids of ``before`` placeholders, and of each description behind them: some tokenizers write the first word
    of a text otherwise than the same word behind another."""
    placeholders = [PLACEHOLDER] * before
    lead = tokenize([" ".join(placeholders)])[0] if before else []
    heads = tokenize([" ".join([*placeholders, text]) for text in descriptions])
    return lead, [head[len(lead) :] for head in heads]


class PromptTokens:
    """Token ids of the prompts and the places of their context.

    A prompt is the tower's start token, where it has one, ``before`` context tokens, the description, ``after`` context
    tokens, the end token. A description that does not fit the tower's length is cut, the context never is.

    position: "end" (of the description, behind the context), "middle", "front"; or "released_middle", the released
    code's: the second half of the context stands where the prompt with all of its context in front would end, so that
    the end token and padding come before it.

    Raises UserError where the context leaves no room for a description, and where the tokenizer does not tell the
    descriptions apart or does not know their words.

    token_ids: (N, L) int64, padded. context_positions: (N, num_context_tokens) int64. pooled: (N,) int64, the place of
    the end token, of "released_middle" its place with all of the context in front. num_cut: descriptions cut.
    """

    def __init__(self, tower: TextSide, descriptions: list[str], num_context_tokens: int, position: str):
        check_room(num_context_tokens, tower.room)
        half = num_context_tokens // 2
        before = {"end": num_context_tokens, "middle": half, "released_middle": half, "front": 0}[position]
        after = num_context_tokens - before
        start, end, padding = tower.special_tokens
        opening = [] if start is None else [start]
        # a placeholder behind another word: its id may differ from that of one at the start of the text
        placeholder = tower.tokenize([f"{PLACEHOLDER} {PLACEHOLDER}"])[0][-1:]
        lead, texts = tokens_behind(tower.tokenize, descriptions, before)
        check_texts(tower, descriptions, texts)
        if len(lead) != before:  # a tokenizer without a token for the placeholder
            lead = placeholder * before
        room = tower.room - num_context_tokens
        self.num_cut = sum(len(text) > room for text in texts)
        texts = [text[:room] for text in texts]
        self.pooled = torch.tensor([len(opening) + num_context_tokens + len(text) for text in texts])
        self.token_ids = torch.full((len(texts), tower.context_length), padding)
        self.context_positions = torch.zeros(len(texts), num_context_tokens, dtype=torch.long)
        for row, text in enumerate(texts):
            gap: list[int] = []
            if position == "released_middle":
                longest = tower.context_length - len(opening) - num_context_tokens - len(text)
                gap = [end, *[padding] * (num_context_tokens - 1)][:longest]
            first, second = len(opening), len(opening) + before + len(text) + len(gap)
            prompt = [*opening, *lead, *text, *gap, *(placeholder * after), *([] if gap else [end])]
            self.token_ids[row, : len(prompt)] = torch.tensor(prompt)
            self.context_positions[row] = torch.tensor([*range(first, first + before), *range(second, second + after)])


def shared_as_each(saved: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; its one context for both scales serves as that of each where a context of
    each scale is among the names expected."""
    tensors = dict(saved)
    for name in expected:
        shared = name.removesuffix(SCALE_CONTEXT) + SHARED_CONTEXT
        if name.endswith(SCALE_CONTEXT) and shared in tensors:
            tensors[name] = torch.stack([tensors.pop(shared)] * 2)
    return tensors


class PublishedEncoding(nn.Module):
    """Each prompt by itself, as the vision-language model encodes texts; what prompts share is computed once."""

    is_constant = False  # whether the features are the same for any context

    def __init__(self, tower: TextSide, tokens: PromptTokens, num_classes: int, contexts: Tensor):
        super().__init__()
        self.tree = tower.prefix_tree(tokens.token_ids, contexts)

    def forward(self, tower: TextSide, embeddings: Tensor, token_ids: Tensor) -> Tensor:
        """(N, L, W) prompt embeddings of (N, L) ids -> (N, D) features."""
        return tower.encode_prompts(embeddings, token_ids, self.tree)


class PromptLearner(nn.Module):
    """Encodes a task's descriptions with learnable context; only the context is trained.

    tower: the frozen text tower. low_texts: K*O descriptions, class-major. high_texts: K*O*S, in the order of their
    low texts. encoding: how the tower reads the prompts, ``PublishedEncoding`` or the one of models/released; it gets
    the number of each prompt's context, (N,) int64. per_scale: whether the texts of each scale have a context of their
    own (paper, Equation 1).

    context_tokens: (num_context_tokens, W), or (K, num_context_tokens, W) when class-specific; N(0, 0.02). With
    ``per_scale`` scale_context_tokens stands in its place: two of these, (2, ...), of the low and of the high scale.
    """

    token_embeddings: Tensor
    token_ids: Tensor
    context_positions: Tensor

    def __init__(
        self,
        tower: TextSide,
        low_texts: list[str],
        high_texts: list[str],
        num_classes: int,
        num_context_tokens: int = 16,
        class_specific: bool = False,
        position: str = "end",
        encoding: Callable[[TextSide, PromptTokens, int, Tensor], nn.Module] = PublishedEncoding,
        per_scale: bool = False,
    ):
        super().__init__()
        self.tower = tower
        self.num_classes = num_classes
        num_low, num_high = len(low_texts) // num_classes, len(high_texts) // num_classes
        self.num_low, self.num_high = num_low, num_high
        # prompts stand class by class, a class's low texts before its high texts
        prompts: list[str] = []
        for k in range(num_classes):
            prompts += low_texts[k * num_low : (k + 1) * num_low] + high_texts[k * num_high : (k + 1) * num_high]
        tokens = PromptTokens(tower, prompts, num_context_tokens, position)
        self.num_cut = tokens.num_cut
        num_contexts = 2 if per_scale else 1, num_classes if class_specific else 1
        numbers = torch.arange(num_contexts[0] * num_contexts[1]).view(*num_contexts, 1, 1)
        self.encoding = encoding(tower, tokens, num_classes, self._of_prompts(numbers).flatten())
        device = tower.logit_scale.device
        self.register_buffer("token_ids", tokens.token_ids.to(device), persistent=False)
        self.register_buffer("context_positions", tokens.context_positions.to(device), persistent=False)
        with torch.no_grad():
            self.register_buffer("token_embeddings", tower.embed(self.token_ids), persistent=False)
        self.context_shape = *num_contexts, num_context_tokens, tower.width
        sizes = [2] * per_scale + [num_classes] * class_specific + [num_context_tokens, tower.width]
        self.context_name = SCALE_CONTEXT if per_scale else SHARED_CONTEXT
        self.register_parameter(self.context_name, nn.Parameter(nn.init.normal_(torch.empty(sizes), std=0.02)))
        self._cache: tuple[tuple[int, int, bool], Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda *_: self.forget())  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> "PromptLearner":
        """The tower stays frozen and in evaluation mode."""
        super().train(mode)
        self.tower.eval()
        return self

    @property
    def context(self) -> nn.Parameter:
        """What is trained."""
        return self.get_parameter(self.context_name)

    def _of_prompts(self, contexts: Tensor) -> Tensor:
        """Of 2 or 1 scales and K or 1 classes (2 | 1, K | 1, n, W), that of each prompt: (N, n, W)."""
        counts = [self.num_low, self.num_high] if len(contexts) == 2 else [self.num_low + self.num_high]
        of_scales = [
            context.unsqueeze(1).expand(self.num_classes, count, -1, -1)
            for context, count in zip(contexts, counts, strict=True)
        ]
        return torch.cat(of_scales, dim=1).flatten(0, 1)

    def prompt_embeddings(self) -> Tensor:
        """Token embeddings of all prompts with the context in place: (N, L, W)."""
        context = self._of_prompts(self.context.view(self.context_shape))
        places = self.context_positions.unsqueeze(-1).expand_as(context)
        return self.token_embeddings.scatter(1, places, context.to(self.token_embeddings.dtype))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Text features, not normalised: low (K*O, D) and high (K*O*S, D).

        Without gradients they are computed once for each state of the context, and once for all where the encoding
        does not depend on it; the context then gets a gradient of exactly zero.
        """
        needs_gradient = torch.is_grad_enabled()
        if needs_gradient and not self.encoding.is_constant:
            features = self._encode()
        else:
            features = self._kept_features()
            if needs_gradient:
                features = features + 0.0 * self.context.sum()
        by_class = features.view(self.num_classes, -1, features.shape[-1])
        return by_class[:, : self.num_low].flatten(0, 1), by_class[:, self.num_low :].flatten(0, 1)

    @torch.no_grad()
    def _kept_features(self) -> Tensor:
        context = self.context
        version = 0 if self.encoding.is_constant else context._version
        key = (context.data_ptr(), version, torch.is_autocast_enabled(context.device.type))
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self._encode())
        return self._cache[1]

    def forget(self) -> None:
        self._cache = None

    def _encode(self) -> Tensor:
        features: Tensor = self.encoding(self.tower, self.prompt_embeddings(), self.token_ids)
        return features
