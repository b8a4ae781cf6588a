"""The tables of a study, as the report reads them: without torch, whose import takes seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from roadseg.config.study import ROOT, Plan
from roadseg.errors import InputError

TABLES = (
    "runs", "arms", "classes", "comparisons", "class_effects", "noise", "searches", "networks",
    "fronts", "volumes", "catalogue", "course", "curves", "reliability", "outcomes",
)  # fmt: skip
ALIKE = 0.05  # a share of costs; of the order of the spread of single passes
LEVEL = 0.05  # of the verdicts, over all comparisons that a study is made for


@dataclass(frozen=True)
class Results:
    """The tables of one study.

    Attributes
    ----------
    runs : one row per run: arm, seed, every knob, scores, cost in seconds, device, versions
    arms : one row per study and arm: mIoU on test over the plan's seeds with its 95 % interval,
        on val, boundary IoU (mean over classes), calibration error, forward passes per test image
        and the multiply-adds (10^9) of all of them, and the name its runs are trained under
        (`trained_as`), which the tables below and `runs` use
    classes : one row per trained arm and class: mean IoU on test over seeds with its 95 % interval,
        boundary IoU, share of test pixels
    comparisons : one row per comparison of a study: paired difference with its 95 % interval, p
        alone and corrected (Holm) for the study's `tests`, the smallest true difference that would
        have been found (`detectable`), and the verdict. Of networks all pairs; of tricks, the
        comparisons that the study is made for (`trick` names it) and a ladder's two ends
    class_effects : one row per trick and class: the same for the class's IoU
    noise : one row per noise study: one recipe's score over all its seeds, with its 95 % interval,
        and the spread between them
    searches : one row per arm and learning rate that a search tried: score on val, whether chosen
    networks : one row per architecture: parameters, multiply-adds of one pass, latency, throughput,
        memory, energy, receptive fields
    fronts : one row per networks study, measure of cost and arm: cost, scores, whether it is on the
        front by val scores, and in what share of resamples by test scores
    volumes : one row per networks study and measure: the front's hypervolume with its interval
    catalogue : one row per network that the settings list: parameters and multiply-adds
    course : the course study's networks, their cost as reported and as counted here
    curves : one row per run and epoch
    reliability : one row per trained arm and bin of confidence: test pixels of the plan's seeds,
        how many are right, and the sum of their confidence
    outcomes : one row per planned arm: seconds and joules (where a driver tells) of the call that
        trained it, how many of its seeds failed, and why the first of them did. The other tables
        leave an arm out of which a seed failed: the mean of those that came through says nothing
    """

    runs: pd.DataFrame
    arms: pd.DataFrame
    classes: pd.DataFrame
    comparisons: pd.DataFrame
    class_effects: pd.DataFrame
    noise: pd.DataFrame
    searches: pd.DataFrame
    networks: pd.DataFrame
    fronts: pd.DataFrame
    volumes: pd.DataFrame
    catalogue: pd.DataFrame
    course: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame
    outcomes: pd.DataFrame

    @classmethod
    def read(cls, plan: Plan) -> "Results":
        """Read a study's tables; the InputError of a missing one says how to make it."""
        for name in TABLES:
            if not (plan.results / f"{name}.csv").is_file():
                raise InputError(
                    f"results/{plan.name}/{name}.csv: no results yet. Run 'make report' first."
                )
        return cls(*(pd.read_csv(plan.results / f"{name}.csv") for name in TABLES))

    @property
    def failed(self) -> set[str]:
        """Names of the arms of which a seed failed."""
        return set(self.outcomes["arm"][self.outcomes["failed"] > 0])

    def difference(self, study: str, arm: str, against: str) -> pd.Series:
        """Return the row that compares `arm` with `against`, in that direction."""
        table = self.comparisons
        table = table[table["study"] == study].set_index(["arm", "against"], drop=False)
        if (arm, against) in table.index:
            return table.loc[(arm, against)]
        if (against, arm) not in table.index:
            raise InputError(f"study {study} does not compare {arm} with {against}.")
        row = table.loc[(against, arm)].copy()
        opposite = {"better": "worse", "worse": "better", "helps": "hurts", "hurts": "helps"}
        row["arm"], row["against"] = arm, against
        row["difference"], row["low"], row["high"] = -row["difference"], -row["high"], -row["low"]
        row["verdict"] = opposite.get(row["verdict"], row["verdict"])
        return row

    def best_of_each_network(self) -> pd.DataFrame:
        """Return each network's arm that scored best on val, with its cost, cheapest first."""
        best = self.arms.loc[self.arms.groupby("network")["val_miou"].idxmax()]
        # the arm's multiply-adds, not the network's: several passes per image cost what they cost
        costs = best.merge(self.networks.drop(columns="gmacs"), on="network")
        return costs.sort_values(
            ["gmacs", "val_miou"], ascending=[True, False], kind="stable", ignore_index=True
        )

    def effects(self, study: str) -> pd.DataFrame:
        """Return the comparisons of a study that judge a trick, in its order."""
        table = self.comparisons
        return table[(table["study"] == study) & table["trick"].fillna("").ne("")]

    def of(self, study: str) -> pd.DataFrame:
        """Return the rows of `arms` that belong to a study, in its order."""
        return self.arms[self.arms["study"] == study]


def late_gain(curves: pd.DataFrame, arm: str) -> tuple[float, int]:
    """Return how much the mean val mIoU changed late in training, in points, and in how many steps.

    Late is from the last score taken in the first three quarters of the training, or from the
    first score if there is none.
    """
    own = curves[(curves["arm"] == arm) & curves["val_miou"].notna()]
    scores = own.groupby("step")["val_miou"].mean()
    before = scores[scores.index <= 0.75 * scores.index[-1]]
    start = before.index[-1] if len(before) else scores.index[0]
    return 100 * float(scores.iloc[-1] - scores[start]), int(scores.index[-1] - start)


def alike(costs: np.ndarray) -> np.ndarray:
    """Return costs, those that differ by less than anybody would pay for as the least of them."""
    found, first = costs.copy(), -np.inf
    for index in np.argsort(costs, kind="stable"):
        if costs[index] > first * (1 + ALIKE):
            first = costs[index]
        found[index] = first
    return found


def reference() -> pd.DataFrame:
    """Return what the course study reports: mIoU (0..1) and multiply-adds (10^9)."""
    return pd.read_csv(ROOT / "data" / "reference.csv")


def reference_classes(source: str) -> dict[str, dict[str, float]]:
    """Return what others report for a kind of data: network -> class -> IoU (0..1)."""
    table = pd.read_csv(ROOT / "data" / "reference_classes.csv")
    own = table[table["data"] == source]
    return {name: rows.set_index("class")["iou"].to_dict() for name, rows in own.groupby("network")}


def reference_ladder() -> pd.DataFrame:
    """Return the course study's ladder of tricks: trick, mIoU (0..1) after it, source."""
    return pd.read_csv(ROOT / "data" / "reference_ladder.csv")


def write_together(contents: dict[Path, bytes]) -> None:
    """Write files that take their names when all are written, so that a full disk leaves the old.

    Their folders are made if they are not there.
    """
    partial = {file: file.with_name(f"{file.name}.partial") for file in contents}
    try:
        for file, content in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial[file].write_bytes(content)
        for file in contents:
            partial[file].replace(file)
    finally:
        for file in partial.values():
            file.unlink(missing_ok=True)
