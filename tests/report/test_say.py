"""Sentences and their numbers, by hand."""

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError

from roadseg.report import say


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0123, "+1.2"), (-0.0123, "−1.2"), (0.0004, "0.0"), (-0.0004, "0.0"), (0.0006, "+0.1"),
     (0.25, "+25.0"), (np.nan, say.UNKNOWN)],
)  # fmt: skip
def test_points_have_a_sign_unless_they_round_to_zero(value, written):
    assert say.points(value) == written


def test_other_numbers():
    assert [say.score(x) for x in (0.6238, 1, np.nan)] == ["62.4 %", "100.0 %", say.UNKNOWN]
    assert [say.duration(x) for x in (42, 119.6, 600, 7199, 7200)] == [
        "42 s", "120 s", "10 minutes", "120 minutes", "2.0 hours"
    ]  # fmt: skip
    assert [say.cost(x) for x in (0.01234, 5.331, 1234.5)] == ["0.0123 GMACs", "5.33 GMACs", "1,234 GMACs"]
    assert [say.count(n, "seed") for n in (0, 1, 2000)] == ["0 seeds", "1 seed", "2,000 seeds"]
    assert say.count(2, "class", "classes") == "2 classes"


def test_an_interval_is_of_scores_or_of_differences():
    assert say.interval({"low": 0.601, "high": 0.645}) == "60.1 to 64.5"
    assert say.interval(pd.Series({"difference": 0, "low": -0.003, "high": 0.012})) == "−0.3 to +1.2"
    assert say.interval({"low": np.nan, "high": np.nan}) == ""


def test_lists_are_read_aloud():
    assert [say.listed(list(x)) for x in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert say.listed("abcde", most=3) == "a, b and 3 more" and say.listed("abc", most=3) == "a, b and c"


def test_a_template_is_filled_in_paragraph_by_paragraph():
    text = say.fill(
        """First
        {{ x | points }} points.

        {% if no %}Not this.{% endif %}

        - {{ names | names(3) }}
        - two
          lines
        """,
        x=0.02, no=False, names=["a_b", "*c*", "d", "e"],
    )  # fmt: skip
    assert text == "First +2.0 points.\n\n- a\\_b, \\*c\\* and 2 more\n- two lines"
    with pytest.raises(UndefinedError):
        say.fill("{{ forgotten }}")


def test_values_are_no_templates():
    assert say.fill("{{ x }}", x="{{ y }} {% z %}") == "{{ y }} {% z %}"
    assert say.say("{{ x | name }}", x="<b>").data == "\\<b\\>"
