"""What a model thinks aloud is told from what it answers."""

import pytest

from utils.reasoning import without_reasoning

TEXTS = {
    "none": ("an answer", "an answer"),
    "before": ("<think>a draft</think>\nan answer", "\nan answer"),
    "capitals": ("<THINK>a draft</Think>an answer", "an answer"),
    "another word": ("<reasoning>a draft</reasoning>an answer", "an answer"),
    "thinking": ("<thinking>a draft</thinking>an answer", "an answer"),
    "Magistral": ("[THINK]a draft[/THINK]an answer", "an answer"),
    "Kimi": ("◁think▷a draft◁/think▷an answer", "an answer"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>a draft<|end|><|start|>assistant<|channel|>final<|message|>an answer",
        "an answer",
    ),
    "gpt-oss with a format": ("<|channel|>final <|constrain|>json<|message|>an answer", "an answer"),
    "closed alone": ("a draft\n</think>\nan answer", "\nan answer"),
    "never closed": ("<think>a draft of an answer", ""),
    "twice": ("<think>a</think>an <think>b</think>answer", "an answer"),
    "within lines": ("<think>\n{\n</think>\n{}\n", "\n{}\n"),
    "an answer before": ("an answer<think>a draft</think>", "an answer"),
    "signs of other kinds": ("a < b, <thin> and [1]", "a < b, <thin> and [1]"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", TEXTS)
def test_the_answer_is_left(case: str) -> None:
    text, answer = TEXTS[case]
    assert without_reasoning(text) == answer
