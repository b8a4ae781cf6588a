"""From the records of the runs to the tables that the report reads."""

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from roadseg import cost, data, metrics
from roadseg.metrics import Confusion, Interval
from roadseg.models import build
from roadseg.recipe import InputError
from roadseg.study import ROOT, Plan
from roadseg.train import Record, default_device, device_name, precision_on

TABLES = ("runs", "arms", "classes", "comparisons", "networks", "curves")


@dataclass(frozen=True)
class Results:
    """The tables of one study.

    Attributes
    ----------
    runs : one row per run: arm, seed, every knob, scores, cost in seconds, device, versions
    arms : one row per study and arm: mIoU on test over seeds with its 95 % interval, on val, and
        the name its runs are trained under (`trained_as`), which the tables below and `runs` use
    classes : one row per trained arm and class: mean IoU on test over seeds, share of test pixels
    comparisons : one row per pair of arms of a study: paired difference with interval
    networks : one row per network: parameters, multiply-adds, latency
    curves : one row per run and epoch
    """

    runs: pd.DataFrame
    arms: pd.DataFrame
    classes: pd.DataFrame
    comparisons: pd.DataFrame
    networks: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def read(cls, plan: Plan) -> "Results":
        """Read a study's tables; the InputError of a missing one says how to make it."""
        for name in TABLES:
            if not (plan.results / f"{name}.csv").is_file():
                raise InputError(
                    f"results/{plan.name}/{name}.csv: no results yet. Run 'make report' first."
                )
        return cls(*(pd.read_csv(plan.results / f"{name}.csv") for name in TABLES))

    def difference(self, study: str, arm: str, against: str) -> pd.Series:
        """Return the row that compares `arm` with `against`, in that direction."""
        table = self.comparisons
        table = table[table["study"] == study].set_index(["arm", "against"], drop=False)
        if (arm, against) in table.index:
            return table.loc[(arm, against)]
        if (against, arm) not in table.index:
            raise InputError(f"study {study} does not compare {arm} with {against}.")
        row = table.loc[(against, arm)].copy()
        opposite = {"better": "worse", "worse": "better"}
        row["arm"], row["against"] = arm, against
        row["difference"], row["low"], row["high"] = -row["difference"], -row["high"], -row["low"]
        row["verdict"] = opposite.get(row["verdict"], row["verdict"])
        return row

    def best_of_each_network(self) -> pd.DataFrame:
        """Return each network's arm that scored best on val, with its cost, cheapest first."""
        best = self.arms.loc[self.arms.groupby("network")["val_miou"].idxmax()]
        return best.merge(self.networks, on="network").sort_values("gmacs", ignore_index=True)

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


def collect(plan: Plan) -> Results:
    """Compute all tables from the records of the planned runs."""
    records = {run: Record.read(plan.build / "runs" / run) for run in plan.runs}
    scenes = json.loads((plan.prepared / "scenes.json").read_text())
    blocks = data.blocks(scenes["splits"]["test"]["sequences"], plan.data["block"])
    names = scenes["classes"]
    tests = {
        arm: np.stack([records[f"{arm}-s{seed}"].counts["test"] for seed in plan.seeds])
        for arm in plan.arms
    }
    rows = {arm: _arm_row(plan, arm, records, tests[arm], blocks) for arm in plan.arms}
    return Results(
        runs=pd.DataFrame([_run_row(plan, run, record) for run, record in records.items()]),
        arms=pd.DataFrame(
            [
                {"study": study.name, "arm": arm, **rows[plan.arm(recipe)]}
                for study in plan.studies.values()
                for arm, recipe in study.arms.items()
            ]
        ),
        classes=pd.concat(
            [_class_rows(arm, tests[arm], names) for arm in plan.arms], ignore_index=True
        ),
        comparisons=pd.DataFrame(
            [
                _comparison(study.name, arm, against, metrics.interval(a, blocks, minus=b), blocks)
                for study in plan.studies.values()
                for (against, b), (arm, a) in itertools.combinations(
                    ((name, tests[plan.arm(recipe)]) for name, recipe in study.arms.items()), 2
                )
            ]
        ),
        networks=_costs(plan, tuple(scenes["size"]), len(names)),
        curves=pd.concat(
            [record.curve.assign(run=run, arm=run.rpartition("-s")[0])
             for run, record in records.items()],
            ignore_index=True,
        ),
    )  # fmt: skip


def write(results: Results, folder: Path) -> None:
    """Write the tables as CSV, and the headline of each arm as `metrics.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        getattr(results, name).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    headline = {
        row.trained_as: {"test_miou": round(row.test_miou, 4), "val_miou": round(row.val_miou, 4)}
        for row in results.arms.itertuples()
    }
    (folder / "metrics.json").write_text(json.dumps(headline, indent=1) + "\n")


def reference() -> pd.DataFrame:
    """Return what the course study reports: mIoU (0..1) and multiply-adds (10^9)."""
    return pd.read_csv(ROOT / "data" / "reference.csv")


def _run_row(plan: Plan, run: str, record: Record) -> dict:
    val, test = (Confusion(record.counts[split].sum(0)) for split in ("val", "test"))
    return {
        "run": run,
        "arm": run.rpartition("-s")[0],
        **dataclasses.asdict(record.recipe),
        "val_miou": val.miou,
        "test_miou": test.miou,
        "test_course_miou": test.course_miou,
        "test_accuracy": test.accuracy,
        **record.about,
    }


def _arm_row(plan: Plan, arm: str, records: dict, test: np.ndarray, blocks: np.ndarray) -> dict:
    score = _told(metrics.interval(test, blocks))
    per_seed = metrics.miou(test.sum(1))
    own = [records[f"{arm}-s{seed}"] for seed in plan.seeds]
    return {
        "trained_as": arm,
        "network": own[0].recipe.network,
        "test_miou": score.estimate,
        "low": max(score.low, 0.0),  # a score has no others; NaN stays
        "high": min(score.high, 1.0),
        "seeds": score.seeds,
        "blocks": len(np.unique(blocks)),
        "seed_sd": per_seed.std(ddof=1) if len(per_seed) > 1 else np.nan,
        "val_miou": np.mean([Confusion(r.counts["val"].sum(0)).miou for r in own]),
        "course_miou": np.mean([Confusion(c).course_miou for c in test.sum(1)]),
        "accuracy": np.mean([Confusion(c).accuracy for c in test.sum(1)]),
        "train_seconds": np.median([r.about["seconds"] for r in own]),
    }


def _class_rows(arm: str, test: np.ndarray, names: list[str]) -> pd.DataFrame:
    counts = test.sum(1)
    return pd.DataFrame(
        {
            "arm": arm,
            "class": names,
            "iou": metrics.iou(counts).mean(0),
            "share": counts[0].sum(1) / counts[0].sum(),
        }
    )


def _told(found: Interval) -> Interval:
    """Return NaN for an endless interval: it says that nothing is known."""
    if np.isfinite(found.low):
        return found
    return dataclasses.replace(found, low=np.nan, high=np.nan)


def _comparison(
    study: str, arm: str, against: str, difference: Interval, blocks: np.ndarray
) -> dict:
    difference = _told(difference)
    return {
        "study": study,
        "arm": arm,
        "against": against,
        "difference": difference.estimate,
        "low": difference.low,
        "high": difference.high,
        "seeds": difference.seeds,
        "blocks": len(np.unique(blocks)),
        "verdict": verdict(difference),
    }


def verdict(difference: Interval) -> str:
    """Return 'better', 'worse', or 'no difference seen' if the interval includes zero."""
    if not difference.excludes_zero:
        return "no difference seen"
    return "better" if difference.estimate > 0 else "worse"


def points(difference: float) -> str:
    """Return a difference of mIoU (0..1) in points, signed, with decimals until it is not zero."""
    if np.isnan(difference):
        return "unknown"
    text = next(
        (t for t in (f"{100 * difference:+.{n}f}" for n in (1, 2, 3)) if float(t)),
        f"{100 * difference:+.1f}",
    )
    return text.replace("-", "−")


def basis(row: pd.Series) -> str:
    """Return what the interval of an arm or comparison rests on, in words."""
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
    if row["seeds"] == 1 and row["blocks"] == 1:
        return f"{seeds}, test images of one block: no interval can be computed"
    if row["seeds"] == 1:
        return f"over test images alone, {seeds}"
    return f"over {seeds} alone, test images of one block" if row["blocks"] == 1 else seeds


def between(row: pd.Series) -> str:
    """Return the interval of an arm's mIoU and what it rests on, in %."""
    if np.isnan(row["low"]):
        return basis(row)
    return f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}, {basis(row)}"


def sentence(row: pd.Series) -> str:
    """Return a comparison in words, in points of mIoU (%)."""
    size = 100 * row["difference"]
    change, low, high = (points(row[column]) for column in ("difference", "low", "high"))
    if np.isnan(row["low"]):
        return (
            f"**{row['arm']}** and **{row['against']}** differ by {change} points of mIoU here; "
            f"whether they differ elsewhere cannot be told ({basis(row)})."
        )
    interval = f"95 % interval {low} to {high}, {basis(row)}"
    if row["verdict"] == "no difference seen":
        return (
            f"Between **{row['arm']}** and **{row['against']}** no difference was seen: "
            f"{change} points of mIoU ({interval})."
        )
    return (
        f"**{row['arm']}** scores {abs(size):.1f} points of mIoU "
        f"{'more' if size > 0 else 'less'} than **{row['against']}** ({interval})."
    )


def _costs(plan: Plan, size: tuple[int, int], classes: int) -> pd.DataFrame:
    """Return each network's cost at the study's image size, on the device at hand."""
    device = default_device()
    precision = precision_on(device)
    names = dict.fromkeys(recipe.network for recipe in plan.arms.values())
    networks = {name: build(name, classes) for name in names}
    counted = {
        name: {
            "parameters": cost.parameters(network),
            "gmacs": cost.multiply_adds(network, size),
        }
        for name, network in networks.items()
    }
    timed = cost.latencies(networks, size, device=device, bf16=precision == "bf16")
    where = {
        "height": size[0],
        "width": size[1],
        "device": device_name(device),
        "precision": precision,
    }
    return pd.DataFrame(
        [{"network": name, **counted[name], **timed[name], **where} for name in networks]
    )
