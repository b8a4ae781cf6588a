"""Sentences from templates: Jinja2, with filters that write numbers as all of the report does."""

import re
import string

import numpy as np
from IPython.display import Markdown
from jinja2 import Environment, StrictUndefined

from roadseg.data.survey import percent

UNKNOWN = "not known"


def points(difference: float) -> str:
    """Return a difference of fractions in points, signed: 0.0123 -> '+1.2', 0.0001 -> '0.0'."""
    if np.isnan(difference):
        return UNKNOWN
    text = f"{100 * difference:+.1f}"
    return text.replace("-", "−") if float(text) else "0.0"


def score(fraction: float) -> str:
    """Return a score in percent with one decimal: 0.6238 -> '62.4 %'."""
    return UNKNOWN if np.isnan(fraction) else f"{100 * fraction:.1f} %"


def interval(row, write=None) -> str:
    """Return the interval of a row with `low` and `high`: '60.1 to 64.5', '−0.3 to +1.2'.

    A row that has a `difference` is written in signed points. '' where there is no interval.
    """
    write = write or (points if "difference" in row else lambda x: f"{100 * x:.1f}")
    return "" if np.isnan(row["low"]) else f"{write(row['low'])} to {write(row['high'])}"


def cost(gmacs: float) -> str:
    """Return 10⁹ multiply-adds with three digits: 1.3476 -> '1.35 GMACs'."""
    return f"{three_digits(gmacs)} GMACs"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: 42 -> '42 s', 5400 -> '1.5 hours'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def three_digits(value: float) -> str:
    """Return a number with three significant digits, never in powers of ten."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def p_value(p: float) -> str:
    """Return p with so many digits that rounding does not take it to the 0.05 that decides.

    >>> p_value(0.0314), p_value(0.05034), p_value(0.0002), p_value(float("nan"))
    ('0.031', '0.0503', '< 0.001', 'not known')
    """
    if np.isnan(p):
        return UNKNOWN
    texts = [f"{p:.{digits}f}" for digits in range(3, 8)]
    return "< 0.001" if p < 0.001 else next((t for t in texts if float(t) != 0.05), texts[0])


def capital(text: str) -> str:
    """Return a sentence with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: '1 seed', '3 seeds'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(items, *, most: int = 0) -> str:
    """Return items as 'a, b and c'; of more than `most` the first ones and how many there are."""
    items = [str(item) for item in items]
    if most and len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + "".join(items[-1:])


def name(text: str) -> str:
    r"""Return the name of a class or file so that Markdown shows it as it is, and obeys nothing.

    >>> name("a_*<b>")
    'a\\_\\*\\<b\\>'
    """
    return re.sub(f"([{re.escape(string.punctuation)}])", r"\\\1", str(text))


TEMPLATES = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
TEMPLATES.filters |= {
    each.__name__: each
    for each in (capital, cost, count, duration, interval, listed, name, percent, points, score)
}
TEMPLATES.filters["names"] = lambda items, most=0: listed(map(name, items), most=most)


def fill(template: str, /, **values) -> str:
    """Return a template with its values filled in, its line breaks as spaces.

    Paragraphs, which a blank line ends, and items of lists, which begin with a dash, stay apart.
    A line that holds nothing but a tag (`{% if x %}`) leaves nothing behind.
    """
    filled = TEMPLATES.from_string(template).render(**values).strip()
    paragraphs = [
        "\n".join(" ".join(item.split()) for item in re.split(r"\n(?=\s*- )", paragraph))
        for paragraph in re.split(r"\n\s*\n", filled)
    ]
    return "\n\n".join(filter(None, paragraphs))


def say(template: str, /, **values) -> Markdown:
    """Return a template with its values filled in, for a notebook to show."""
    return Markdown(fill(template, **values))
