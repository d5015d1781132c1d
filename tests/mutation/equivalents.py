"""Bugs of the Python layer that no result can show, and why: a file, its lines, what they become."""

EQUIVALENT: dict[tuple[str, str, str], str] = {}
