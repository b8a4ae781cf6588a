"""What is said about bad input, and how."""

import difflib


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to mend it."""


def nearest(name: str, known) -> str:
    """Return ' Did you mean ...?' and the known names, for the end of an error message."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(known) if len(known) <= 30 else f"{', '.join(known[:30])}, ..."
    return f"{hint} Known: {listed}."


def not_allowed(value) -> str:
    """Return that a value cannot be, for the middle of an error message."""
    return "has no value" if value is None else f"{value!r} is not allowed"


def escaped(text: str) -> str:
    """Return text as one line that a terminal shows and does not obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
