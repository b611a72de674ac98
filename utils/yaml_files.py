"""YAML that people write: mappings, lists and texts, within bounds, and nothing that YAML would make of the texts."""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import Fault, UserError

MOST_BYTES = 10**6
MOST_NODES = 10**5  # with each alias written out
DEEPEST = 20
NULL, MERGE, BOOL = (f"tag:yaml.org,2002:{name}" for name in ("null", "merge", "bool"))


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Dates, numbers and what else YAML 1.1 reads out of texts (yes, 1:30, 010) stay the texts that were written; true,
    false and nothing are read."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (as PyYAML declares it)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises MarkedYAMLError where a key is no text, or stands there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag in (NULL, BOOL):
                raise yaml.MarkedYAMLError(problem="a key that is no text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} twice", problem_mark=key.start_mark)
            seen.add(key.value)
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content


Loader.add_implicit_resolver(BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
Loader.add_implicit_resolver(NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
Loader.add_implicit_resolver(MERGE, re.compile(r"<<\Z"), ["<"])


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: dicts with texts as keys, lists, texts, booleans, None.

    Raises UserError where the file is missing or is not such YAML: a key twice or no text, a tag, nesting deeper than
    ``DEEPEST``, more than ``MOST_NODES`` values once aliases are written out, an alias within itself.
    """
    if not path.is_file():
        raise UserError(Fault("file.missing", str(path), "file not found"))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise yaml.YAMLError(f"larger than {MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        _check_events(text)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        found = f"not valid YAML ({' '.join(str(error).split())})"
        raise UserError(Fault("yaml.unreadable", str(path), found, "options and values, as text")) from error


def _check_events(text: str) -> None:
    """Raises YAMLError for tags, deep nesting, and characters that no file can hold."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST}", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag}", problem_mark=event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            event.value.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """The values in a node, aliases written out. Raises YAMLError where they are too many, or without end."""
    number = known.get(id(node))
    if number == 0:  # is being counted
        raise yaml.MarkedYAMLError(problem="an alias within itself", problem_mark=node.start_mark)
    if number is None:
        known[id(node)] = 0
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for item in inside for child in (item if isinstance(item, tuple) else [item])]
        number = known[id(node)] = 1 + sum(_count(child, known) for child in children)
    if number > MOST_NODES:
        raise yaml.MarkedYAMLError(problem=f"more than {MOST_NODES} values", problem_mark=node.start_mark)
    return number
