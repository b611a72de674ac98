"""What a language model answers when it is asked for descriptions, and the options that ask it."""

import json
from pathlib import Path
from typing import Any

from tests.support.chat_server import ChatServer


def text(name: str) -> dict[str, Any]:
    return {"term": f"Term {name}", "explanation": f"what {name} looks like"}


def answer(num_low: int = 4, num_subtexts: int = 3, classes: str = "AB") -> dict[str, Any]:
    return {
        name: [
            {**text(f"{name}{low}"), "sub_features": [text(f"{name}{low}.{high}") for high in range(num_subtexts)]}
            for low in range(num_low)
        ]
        for name in classes
    }


GOOD = json.dumps(answer())


ORDER = [f"{low}" for low in range(4)] + [f"{low}.{high}" for low in range(4) for high in range(3)]


FLAT = {name: {f"Term {name}{place}": f"what {name}{place} looks like" for place in ORDER} for name in "AB"}


def options(server: ChatServer, output: Path, *more: str) -> list[str]:
    return [
        *("--task", "made", "--classes", "A", "B", "--LLM", "m", "--base-url", server.url),
        *("--output", str(output), *more),
    ]


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_suffix(".answers.jsonl").read_text().splitlines()]
