"""The rules by which children are given to parents, by the names that ``--link-rule`` takes."""

CENTRE, RELEASED = "centre", "released"
LINK_RULES = CENTRE, RELEASED
