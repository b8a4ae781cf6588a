import numpy as np
import pandas as pd
import pytest

from roadseg import results
from roadseg.metrics import Interval
from roadseg.recipe import InputError


def test_verdicts():
    assert results.verdict(Interval(0.02, 0.01, 0.03, 3)) == "better"
    assert results.verdict(Interval(-0.02, -0.03, -0.01, 3)) == "worse"
    assert results.verdict(Interval(0.02, -0.01, 0.05, 3)) == "no difference seen"


def row(difference, low, high, seeds=3):
    found = Interval(difference, low, high, seeds)
    return {
        "study": "s", "arm": "b", "against": "a", "difference": difference, "low": low,
        "high": high, "seeds": seeds, "verdict": results.verdict(found),
    }  # fmt: skip


def tables(rows):
    empty = pd.DataFrame()
    return results.Results(empty, empty, empty, pd.DataFrame(rows), empty, empty)


def test_sentences_say_what_the_interval_says():
    assert results.sentence(pd.Series(row(0.031, 0.012, 0.05))) == (
        "**b** scores 3.1 points of mIoU more than **a** (95 % interval +1.2 to +5.0, 3 seeds)."
    )
    assert "3.1 points of mIoU less than" in results.sentence(pd.Series(row(-0.031, -0.05, -0.012)))
    assert results.sentence(pd.Series(row(0.011, -0.01, 0.032, 1))) == (
        "Between **b** and **a** no difference was seen: +1.1 points of mIoU "
        "(95 % interval −1.0 to +3.2, 1 seed)."
    )


def test_a_comparison_reads_both_ways():
    found = tables([row(0.03, 0.01, 0.05)])
    there, back = found.difference("s", "b", "a"), found.difference("s", "a", "b")
    assert (there["difference"], there["low"], there["high"]) == (0.03, 0.01, 0.05)
    assert (back["difference"], back["low"], back["high"]) == (-0.03, -0.05, -0.01)
    assert (there["verdict"], back["verdict"]) == ("better", "worse")
    with pytest.raises(InputError, match="study s does not compare a with c"):
        found.difference("s", "a", "c")


def test_the_reference_table_holds_the_course_study_s_rows():
    table = results.reference()
    assert table.gmacs.iloc[0] == 67.003
    assert ((table.miou > 0.2) & (table.miou < 0.9)).all()
    assert np.isfinite(table.gmacs).all() and len(table) == 14
