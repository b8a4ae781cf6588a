"""The tables of a study, as the report reads them: without torch, whose import takes seconds."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from roadseg.analysis.pareto import pareto_staircase
from roadseg.config import paths
from roadseg.config.study import Study
from roadseg.errors import InputError

TABLES = (
    "runs", "arms", "classes", "comparisons", "class_effects", "noise", "searches", "networks",
    "pareto", "prior", "catalogue", "curves", "reliability", "outcomes", "unfinished",
    "block_lengths",
)  # fmt: skip
SIMILAR_COST_SHARE = 0.05  # a share of costs; of the order of the spread of single passes
LEVEL = 0.05  # of the verdicts, over all comparisons that a question is made for


@dataclass(frozen=True)
class Results:
    """The tables of one study.

    Attributes
    ----------
    runs : one row per run: arm, seed, every hyperparameter, scores, cost in seconds, device,
        versions, and the run whose weights it has (`weights_of`) if not its own
    arms : one row per question and arm: mIoU on test over the study's seeds with its 95 % interval,
        on val, boundary IoU (mean over classes), calibration error, forward passes per test image
        and the multiply-adds (10^9) of all of them
    classes : one row per arm and class: mean IoU on test over seeds with its 95 % interval,
        boundary IoU, share of test pixels
    comparisons : one row per comparison of a question: paired difference with its 95 % interval, p
        alone and corrected (Holm) for the question's `tests`, the smallest true difference that
        would have been found (`detectable`), and the verdict. Of networks all pairs; of tricks, the
        comparisons that the question is made for (`trick` names it) and a ladder's two ends
    class_effects : one row per trick and class: the same for the class's IoU
    noise : one row per noise question: one recipe's score over all its seeds, with its 95 %
        interval, and the spread between them
    searches : one row per arm and learning rate that a search tried: score on val, whether chosen
    networks : one row per architecture: parameters, multiply-adds of one pass, latency, throughput,
        memory, energy, effective receptive field
    pareto : one row per networks question, measure of cost and arm: cost, scores, whether it is
        Pareto-optimal by val scores, and in what share of resamples it is by test scores
    prior : one row, the location prior: at each pixel the class that is most frequent there in the
        training images, which looks at no image. Scores, with the interval over test images
    catalogue : one row per network that the settings list: parameters and multiply-adds
    curves : one row per run and epoch
    reliability : one row per arm and bin of confidence: test pixels of the study's seeds, how many
        are correct, and the sum of their confidence
    outcomes : one row per arm that is asked for: seconds of its runs' trainings and joules (where a
        driver tells), how many of its seeds failed, and why the first of them did. The other tables
        leave an arm out of which a seed failed: the mean of those that came through says nothing
    unfinished : one row per question of which a run is missing, which all other tables leave out:
        how many runs are, of how many that it asks for
    block_lengths : of video, one row per comparison and other length of blocks, half and twice the
        study's: the verdict that it would have
    """

    runs: pd.DataFrame
    arms: pd.DataFrame
    classes: pd.DataFrame
    comparisons: pd.DataFrame
    class_effects: pd.DataFrame
    noise: pd.DataFrame
    searches: pd.DataFrame
    networks: pd.DataFrame
    pareto: pd.DataFrame
    prior: pd.DataFrame
    catalogue: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame
    outcomes: pd.DataFrame
    unfinished: pd.DataFrame
    block_lengths: pd.DataFrame

    @classmethod
    def read(cls, study: Study) -> "Results":
        """Read a study's tables; the InputError of a missing one says how to make it."""
        folder = study.results / "tables"
        for name in TABLES:
            if not (folder / f"{name}.csv").is_file():
                raise InputError(
                    f"results/{study.name}/tables/{name}.csv: no results yet. "
                    "Run 'make report' first."
                )
        return cls(*(pd.read_csv(folder / f"{name}.csv") for name in TABLES))

    def ended(self, study: Study) -> Study:
        """Return the study with only the questions whose runs came to an end, or failed."""
        return with_questions(study, study.questions.keys() - set(self.unfinished["question"]))

    def finished(self, study: Study) -> Study:
        """Return what the tables are about: those questions, without the arms that failed."""
        return self.ended(study).without(self.failed)

    @property
    def failed(self) -> set[str]:
        """Names of the arms of which a seed failed."""
        return set(self.outcomes["arm"][self.outcomes["failed"] > 0])

    def difference(self, question: str, arm: str, against: str) -> pd.Series:
        """Return the row that compares `arm` with `against`, in that direction."""
        table = self.comparisons
        table = table[table["question"] == question].set_index(["arm", "against"], drop=False)
        if (arm, against) in table.index:
            return table.loc[(arm, against)]
        if (against, arm) not in table.index:
            raise InputError(f"question {question} does not compare {arm} with {against}.")
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

    def pareto_arms(self) -> pd.DataFrame:
        """Return the arms on the Pareto front of multiply-adds and val mIoU, the cheapest first.

        Of arms that cost about the same, passes per test image included, it has the best.
        """
        costs = self.networks.drop(columns="gmacs")
        arms = self.arms.drop_duplicates("arm").merge(costs, on="network")
        levels = group_similar_costs(arms["gmacs"].to_numpy())
        return arms.iloc[[i for _, i in pareto_staircase(levels, arms["val_miou"].to_numpy())]]

    def arms_by_cost(self) -> pd.DataFrame:
        """Return each network's arm that scored best on val, and `pareto_arms`; cheapest first."""
        arms = pd.concat([self.best_of_each_network(), self.pareto_arms()])
        return arms.drop_duplicates("arm").sort_values("gmacs", ignore_index=True)

    def effects(self, question: str) -> pd.DataFrame:
        """Return the comparisons of a question that judge a trick, in its order."""
        table = self.comparisons
        return table[(table["question"] == question) & table["trick"].fillna("").ne("")]

    def of(self, question: str) -> pd.DataFrame:
        """Return the rows of `arms` that belong to a question, in its order."""
        return self.arms[self.arms["question"] == question]


def with_questions(study: Study, questions: Collection[str]) -> Study:
    """Return a study with some of its questions, in its order, given by their names."""
    kept = {name: question for name, question in study.questions.items() if name in questions}
    return replace(study, questions=kept)


def late_gain(curves: pd.DataFrame, arm: str) -> tuple[float, int]:
    """Return how much the mean val mIoU changed late in training, in points, and in how many steps.

    Late is from the last score taken in the first three quarters of the training, or from the
    first score if there is none.
    """
    arm_curves = curves[(curves["arm"] == arm) & curves["val_miou"].notna()]
    scores = arm_curves.groupby("step")["val_miou"].mean()
    before = scores[scores.index <= 0.75 * scores.index[-1]]
    start = before.index[-1] if len(before) else scores.index[0]
    return 100 * float(scores.iloc[-1] - scores[start]), int(scores.index[-1] - start)


def group_similar_costs(costs: np.ndarray) -> np.ndarray:
    """Return costs, those that differ by less than anybody would pay for as the least of them."""
    grouped, first = costs.copy(), -np.inf
    for index in np.argsort(costs, kind="stable"):
        if costs[index] > first * (1 + SIMILAR_COST_SHARE):
            first = costs[index]
        grouped[index] = first
    return grouped


def reference() -> pd.DataFrame:
    """Return what the course study reports: mIoU (0..1) and multiply-adds (10^9)."""
    return pd.read_csv(paths.ROOT / "data" / "reference.csv")


def reference_costs() -> pd.DataFrame:
    """Return the course study's networks, with their multiply-adds as reported and as counted here.

    `benchmarks/course.py` wrote it, and says what the columns are.
    """
    return pd.read_csv(paths.ROOT / "data" / "reference_costs.csv")


def reference_classes(source: str) -> dict[str, dict[str, float]]:
    """Return what others report for a kind of data: network -> class -> IoU (0..1)."""
    table = pd.read_csv(paths.ROOT / "data" / "reference_classes.csv")
    source_rows = table[table["data"] == source]
    return {
        name: rows.set_index("class")["iou"].to_dict()
        for name, rows in source_rows.groupby("network")
    }


def published(source: str) -> pd.DataFrame:
    """Return what others report on test for a kind of data, each with its source.

    Columns: network, miou (0..1), gmacs (10^9 multiply-adds at the size of its test images),
    parameters (10^6), pretraining, train_images, runs, source; NaN where it is not known.
    """
    table = pd.read_csv(paths.ROOT / "data" / "published.csv")
    return table[table["data"] == source].drop(columns="data")


def reference_ladder() -> pd.DataFrame:
    """Return the course study's ladder of tricks: trick, mIoU (0..1) after it, source."""
    return pd.read_csv(paths.ROOT / "data" / "reference_ladder.csv")


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
