"""What the user should know of prompts that the text tower cannot read to their ends."""

from models.vlms import TextSide


def notes_of_cut(num_cut: int, num_prompts: int, tower: TextSide) -> list[str]:
    """A sentence where ``num_cut`` of the prompts were cut; nothing otherwise."""
    if not num_cut:
        return []
    return [
        f"{num_cut} of {num_prompts} prompts are longer than the text tower's {tower.context_length} tokens; their "
        "ends are cut off"
    ]
