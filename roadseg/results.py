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
from roadseg.recipe import InputError
from roadseg.runs import Record
from roadseg.study import ROOT, Plan, Study
from roadseg.train import default_device, device_name, make_network, precision_on

TABLES = (
    "runs", "arms", "classes", "comparisons", "class_effects", "noise", "networks", "curves",
)  # fmt: skip
LEVEL = 0.05  # of the verdicts, over all comparisons that a study is made for


@dataclass(frozen=True)
class Results:
    """The tables of one study.

    Attributes
    ----------
    runs : one row per run: arm, seed, every knob, scores, cost in seconds, device, versions
    arms : one row per study and arm: mIoU on test over seeds with its 95 % interval, on val,
        forward passes per test image with their cost as a multiple of one, and the name its runs
        are trained under (`trained_as`), which the tables below and `runs` use
    classes : one row per trained arm and class: mean IoU on test over seeds, share of test pixels
    comparisons : one row per comparison of a study: paired difference with its 95 % interval, p
        alone and corrected (Holm) for the study's `tests`, the smallest true difference that would
        have been found (`detectable`), and the verdict. Of networks all pairs; of tricks, the
        comparisons that the study is made for (`trick` names it) and a ladder's two ends
    class_effects : one row per trick and class: the same for the class's IoU
    noise : one row per noise study: the spread over seeds of one recipe's score
    networks : one row per architecture: parameters, multiply-adds, latency
    curves : one row per run and epoch
    """

    runs: pd.DataFrame
    arms: pd.DataFrame
    classes: pd.DataFrame
    comparisons: pd.DataFrame
    class_effects: pd.DataFrame
    noise: pd.DataFrame
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
        opposite = {"better": "worse", "worse": "better", "helps": "hurts", "hurts": "helps"}
        row["arm"], row["against"] = arm, against
        row["difference"], row["low"], row["high"] = -row["difference"], -row["high"], -row["low"]
        row["verdict"] = opposite.get(row["verdict"], row["verdict"])
        return row

    def best_of_each_network(self) -> pd.DataFrame:
        """Return each network's arm that scored best on val, with its cost, cheapest first."""
        best = self.arms.loc[self.arms.groupby("network")["val_miou"].idxmax()]
        costs = best.merge(self.networks, on="network")
        costs["gmacs"] *= costs["test_cost"]  # several passes per image cost what they cost
        return costs.sort_values("gmacs", ignore_index=True)

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


def collect(plan: Plan) -> Results:
    """Compute all tables from the records of the planned runs."""
    records = {
        arm: {seed: Record.read(plan.folder(arm, seed)) for seed in plan.seeds_of(arm)}
        for arm in plan.arms
    }
    scenes = json.loads((plan.prepared / "scenes.json").read_text())
    blocks = data.blocks(scenes["splits"]["test"]["sequences"], plan.data["block"])
    names = scenes["classes"]
    tests = {
        arm: np.stack([records[arm][seed].counts["test"] for seed in plan.seeds])
        for arm in plan.arms
    }
    rows = {
        arm: _arm_row(arm, [records[arm][seed] for seed in plan.seeds], tests[arm], blocks)
        for arm in plan.arms
    }
    studies = plan.studies.values()
    own = {s.name: {a: tests[plan.arm(r)] for a, r in s.arms.items()} for s in studies}
    return Results(
        runs=pd.DataFrame(
            [_run_row(arm, record) for arm in plan.arms for record in records[arm].values()]
        ),
        arms=pd.DataFrame(
            [
                {"study": study.name, "arm": arm, **rows[plan.arm(recipe)]}
                for study in studies
                for arm, recipe in study.arms.items()
            ]
        ),
        classes=pd.concat(
            [_class_rows(arm, tests[arm], names) for arm in plan.arms], ignore_index=True
        ),
        comparisons=pd.DataFrame(
            [row for study in studies for row in _comparisons(study, own[study.name], blocks)]
        ),
        class_effects=pd.DataFrame(
            [
                row
                for study in studies
                for row in _class_effects(study, own[study.name], blocks, names)
            ],
            columns=["study", "trick", "class", "share", "difference", "low", "high", "p",
                     "p_corrected", "verdict"],
        ),
        noise=pd.DataFrame(
            [
                _noise_row(study.name, arm, list(records[plan.arm(recipe)].values()))
                for study in studies
                for arm, recipe in study.arms.items()
                if study.kind == "noise"
            ],
            columns=["study", "arm", "seeds", "mean", "sd", "sd_low", "sd_high"],
        ),
        networks=_costs(plan, tuple(scenes["size"]), len(names)),
        curves=pd.concat(
            [
                record.curve.assign(run=f"{arm}-s{seed}", arm=arm, seed=seed)
                for arm in plan.arms
                for seed, record in records[arm].items()
            ],
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


def reference_ladder() -> pd.DataFrame:
    """Return the course study's ladder of tricks: trick, mIoU (0..1) after it, source."""
    return pd.read_csv(ROOT / "data" / "reference_ladder.csv")


def _run_row(arm: str, record: Record) -> dict:
    val, test = (Confusion(record.counts[split].sum(0)) for split in ("val", "test"))
    return {
        "run": f"{arm}-s{record.recipe.seed}",
        "arm": arm,
        **dataclasses.asdict(record.recipe),
        "val_miou": val.miou,
        "test_miou": test.miou,
        "test_course_miou": test.course_miou,
        "test_accuracy": test.accuracy,
        **record.about,
    }


def _arm_row(arm: str, records: list[Record], test: np.ndarray, blocks: np.ndarray) -> dict:
    score = _told(metrics.interval(test, blocks))
    recipe, per_seed = records[0].recipe, metrics.miou(test.sum(1))
    return {
        "trained_as": arm,
        "network": recipe.architecture,
        "test_miou": score.estimate,
        "low": max(score.low, 0.0),  # a score has no others; NaN stays
        "high": min(score.high, 1.0),
        "seeds": score.seeds,
        "blocks": len(np.unique(blocks)),
        "seed_sd": per_seed.std(ddof=1) if len(per_seed) > 1 else np.nan,
        "val_miou": np.mean([Confusion(r.counts["val"].sum(0)).miou for r in records]),
        "course_miou": np.mean([Confusion(c).course_miou for c in test.sum(1)]),
        "accuracy": np.mean([Confusion(c).accuracy for c in test.sum(1)]),
        "train_seconds": np.median(
            [r.about["seconds"] + r.about["start_seconds"] for r in records]
        ),
        "test_passes": recipe.passes[0],
        "test_cost": recipe.passes[1],
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


def _comparisons(study: Study, tests: dict[str, np.ndarray], blocks: np.ndarray) -> list[dict]:
    """Return the rows of `comparisons` that belong to a study.

    Parameters
    ----------
    study : which arms are compared
    tests : arm -> counts int64 (S, N, K, K)
    blocks : int (N,)
    """
    asked, noise = list(study.effects), _pooled(study, tests, metrics.miou)
    if study.kind == "networks":
        asked = [("", arm, against) for against, arm in itertools.combinations(tests, 2)]
        noise = None  # networks differ in how much their seeds differ: each pair has its own
    found = [metrics.interval(tests[a], blocks, minus=tests[b], noise=noise) for _, a, b in asked]
    corrected = metrics.holm(np.array([each.p for each in found]))
    rows = [
        _comparison(study, pair, each, blocks, tests, p, len(asked))
        for pair, each, p in zip(asked, found, corrected, strict=True)
    ]
    ends = list(tests)
    if study.kind == "ladder" and len(ends) > 2:
        pair = ("", ends[-1], ends[0])
        whole = metrics.interval(tests[pair[1]], blocks, minus=tests[pair[2]], noise=noise)
        rows.append(_comparison(study, pair, whole, blocks, tests, whole.p, 1))
    return rows


def _pooled(study: Study, tests: dict[str, np.ndarray], measure) -> metrics.SeedNoise | None:
    """Return the noise between seeds that a study's arms share; None if it cannot be told.

    Arms that share their weights, because only testing differs, share their luck and count once.
    With the few degrees of freedom of a pair's own seeds, p-values are no good after a correction
    for many comparisons: see `metrics.interval`.
    """
    trained = {}
    for arm, counts in tests.items():
        trained.setdefault(study.arms[arm].training, counts)
    arms = list(trained.values())
    return metrics.seed_noise(arms, measure) if len(arms) > 1 and len(arms[0]) > 1 else None


def _comparison(
    study: Study,
    pair: tuple[str, str, str],
    difference: Interval,
    blocks: np.ndarray,
    tests: dict[str, np.ndarray],
    corrected: float,
    count: int,
) -> dict:
    trick, arm, against = pair
    per_seed = metrics.miou(tests[arm].sum(1)) - metrics.miou(tests[against].sum(1))
    difference = _told(difference)
    return {
        "study": study.name,
        "trick": trick,
        "arm": arm,
        "against": against,
        "difference": difference.estimate,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p,
        "p_corrected": corrected,
        "tests": count,
        "detectable": metrics.detectable(difference, count),
        "seed_sd": per_seed.std(ddof=1) if len(per_seed) > 1 else np.nan,
        "seeds": difference.seeds,
        "blocks": len(np.unique(blocks)),
        "verdict": verdict(difference.estimate, corrected, trick=bool(trick)),
    }


def _class_effects(
    study: Study, tests: dict[str, np.ndarray], blocks: np.ndarray, names: list[str]
) -> list[dict]:
    """Return the rows of `class_effects` that belong to a study of tricks; see `_comparisons`."""
    if not study.effects:
        return []
    noise = _pooled(study, tests, metrics.iou)
    truth = next(iter(tests.values()))[0].sum(0).sum(1)
    rows = [
        {
            "study": study.name,
            "trick": trick,
            "class": name,
            "share": share,
            "difference": each.estimate,
            "low": _told(each).low,
            "high": _told(each).high,
            "p": each.p,
        }
        for trick, arm, against in study.effects
        for name, share, each in zip(
            names,
            truth / truth.sum(),
            metrics.class_intervals(tests[arm], blocks, minus=tests[against], noise=noise),
            strict=True,
        )
        if share > 0
    ]
    corrected = metrics.holm(np.array([row["p"] for row in rows]))
    return [
        row | {"p_corrected": p, "verdict": verdict(row["difference"], p, trick=True)}
        for row, p in zip(rows, corrected, strict=True)
    ]


def _noise_row(study: str, arm: str, records: list[Record]) -> dict:
    scores = np.array([Confusion(record.counts["test"].sum(0)).miou for record in records])
    sd, low, high = metrics.sd_interval(scores)
    return {
        "study": study, "arm": arm, "seeds": len(scores), "mean": scores.mean(),
        "sd": sd, "sd_low": low, "sd_high": high,
    }  # fmt: skip


def verdict(difference: float, p: float, *, trick: bool) -> str:
    """Return what a comparison comes to, at a corrected p: none below 5 % is no difference seen."""
    none, more, less = (
        ("no effect seen", "helps", "hurts") if trick else ("no difference seen", "better", "worse")
    )
    if not p < LEVEL:  # NaN too
        return none
    return more if difference > 0 else less


def _costs(plan: Plan, size: tuple[int, int], classes: int) -> pd.DataFrame:
    """Return each network's cost at the study's image size, on the device at hand."""
    device = default_device()
    precision = precision_on(device)
    recipes = {recipe.architecture: recipe for recipe in plan.arms.values()}
    networks = {
        name: make_network(recipe.changed({"aux_weight": 0.0}), classes)  # for training only
        for name, recipe in recipes.items()
    }
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
