"""CamVid's frozen comparisons, judged again by each comparison's own noise.

The tables in results/camvid are of an earlier version, which pooled the noise of seeds over arms.
Their counts are enough to compute every comparison anew, without the data set: docs/camvid.md.
"""

import numpy as np
import page
import pandas as pd

from roadseg.analysis import intervals
from roadseg.analysis.results import verdict
from roadseg.config.paths import ROOT
from roadseg.data.scenes import blocks

FROZEN = ROOT / "results/camvid"
# Test images of each video, in the order of the usual list (test.txt of SegNet's tutorial).
TEST_SEQUENCES = {"0001TP": 62, "Seq05VD": 171}
FRAMES = 10  # of a block, as the study had it
PAGE = ROOT / "docs/camvid.md"


def judged_again() -> pd.DataFrame:
    """Return the frozen comparisons, with the same columns computed anew under `new_` names."""
    arms = pd.read_csv(FROZEN / "arms.csv").set_index(["study", "arm"])["trained_as"]
    table = pd.read_csv(FROZEN / "comparisons.csv", keep_default_na=False, na_values=[""])
    test_blocks = blocks(np.repeat(list(TEST_SEQUENCES), list(TEST_SEQUENCES.values())), FRAMES)
    with np.load(FROZEN / "counts.npz") as counts:
        sums = {run: counts[run] for run in counts.files}

    def interval(row) -> intervals.Interval:
        pair = [arms[row.study, name] for name in (row.arm, row.against)]
        arm, against = (
            np.stack([sums[f"{name}-s{seed}"] for seed in range(row.seeds)]) for name in pair
        )
        return intervals.interval(arm, test_blocks, against)

    new = [interval(row) for row in table.itertuples()]
    table["new_difference"] = [each.estimate for each in new]
    table["new_low"], table["new_high"] = [e.low for e in new], [e.high for e in new]
    table["new_p"] = [each.p for each in new]
    # a ladder's two ends are outside the correction: they have one test
    family = table["study"].where(table["tests"] > 1, table.index.astype(str))
    table["new_p_corrected"] = (
        table["new_p"].groupby(family).transform(lambda p: intervals.holm(p.to_numpy()))
    )
    table["new_verdict"] = [
        verdict(row.new_difference, row.new_p_corrected, trick=isinstance(row.trick, str))
        for row in table.itertuples()
    ]
    return table


def row_text(row) -> dict:
    """Return a comparison as a row of the page's table."""

    def change(estimate: float, low: float, high: float) -> str:
        return f"{100 * estimate:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"

    return {
        "question": row.study,
        "comparison": f"{row.arm} against {row.against}",
        "as frozen": change(row.difference, row.low, row.high),
        "verdict then": row.verdict,
        "by its own noise": change(row.new_difference, row.new_low, row.new_high),
        "verdict now": row.new_verdict,
    }


def main() -> None:
    """Write the page's section."""
    table = judged_again()
    # an earlier version said it with other words
    words = {"no effect seen": "no effect found", "no difference seen": "no difference found"}
    table["verdict"] = table["verdict"].replace(words)
    changed = table[table["verdict"] != table["new_verdict"]]
    largest = (table["new_difference"] - table["difference"]).abs().max()
    page.section(
        "verdicts",
        f"{len(table)} comparisons; the largest change of a difference is {100 * largest:.2g} "
        f"points. {len(changed)} verdicts change (points of test mIoU, 95 % interval):\n\n"
        f"{page.table([row_text(row) for row in changed.itertuples()])}",
        PAGE,
    )


if __name__ == "__main__":
    main()
