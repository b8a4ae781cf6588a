"""From the records of the runs to the tables that the report reads."""

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from roadseg import cost, course, data, intervals, metrics, pareto
from roadseg.data import Scenes
from roadseg.intervals import Interval
from roadseg.metrics import Confusion
from roadseg.models import Segmenter, build, on_meta
from roadseg.recipe import DEFAULTS, InputError, Recipe
from roadseg.runs import Record
from roadseg.study import ROOT, Plan, Study, network_alone
from roadseg.train import default_device, device_name, make_network, precision_on

TABLES = (
    "runs", "arms", "classes", "comparisons", "class_effects", "noise", "searches", "networks",
    "fronts", "volumes", "catalogue", "course", "curves",
)  # fmt: skip
MEASURES = ("gmacs", "latency_ms", "parameters")  # of cost, each with a front of its own
THROUGHPUT_SECONDS = 1.5  # of timing, for each network
FIELD_IMAGES = 8  # test images that an effective receptive field is averaged over
LATENCY_ALIKE = 0.05  # a share; of the order of the spread of single passes
LEVEL = 0.05  # of the verdicts, over all comparisons that a study is made for


@dataclass(frozen=True)
class Results:
    """The tables of one study.

    Attributes
    ----------
    runs : one row per run: arm, seed, every knob, scores, cost in seconds, device, versions
    arms : one row per study and arm: mIoU on test over seeds with its 95 % interval, on val,
        forward passes per test image and the multiply-adds (10^9) of all of them, and the name its
        runs are trained under (`trained_as`), which the tables below and `runs` use
    classes : one row per trained arm and class: mean IoU on test over seeds, share of test pixels
    comparisons : one row per comparison of a study: paired difference with its 95 % interval, p
        alone and corrected (Holm) for the study's `tests`, the smallest true difference that would
        have been found (`detectable`), and the verdict. Of networks all pairs; of tricks, the
        comparisons that the study is made for (`trick` names it) and a ladder's two ends
    class_effects : one row per trick and class: the same for the class's IoU
    noise : one row per noise study: the spread over seeds of one recipe's score
    searches : one row per arm and learning rate that a search tried: score on val, whether chosen
    networks : one row per architecture: parameters, multiply-adds of one pass, latency, throughput,
        memory, energy, receptive fields
    fronts : one row per networks study, measure of cost and arm: cost, scores, whether it is on the
        front by val scores, and in what share of resamples by test scores
    volumes : one row per networks study and measure: the front's hypervolume with its interval
    catalogue : one row per network that the settings list: parameters and multiply-adds
    course : the course study's networks, their cost as reported and as counted here
    curves : one row per run and epoch
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
        # the arm's multiply-adds, not the network's: several passes per image cost what they cost
        costs = best.merge(self.networks.drop(columns="gmacs"), on="network")
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
    size = tuple(scenes["size"])
    gmacs = _test_gmacs(plan, size, len(names))
    rows = {
        arm: _arm_row(arm, [records[arm][seed] for seed in plan.seeds], tests[arm], blocks)
        | {"gmacs": gmacs[arm]}
        for arm in plan.arms
    }
    networks = _costs(plan, size, len(names))
    studies = plan.studies.values()
    compared = [study for study in studies if study.kind == "networks"]
    fronts = pd.concat(
        [_fronts(plan, study, rows, networks, tests, blocks) for study in compared],
        ignore_index=True,
    )
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
        searches=_searches(plan),
        networks=networks,
        fronts=fronts,
        volumes=pd.DataFrame(
            [
                row
                for study in compared
                for row in _volumes(plan, study, fronts, tests, blocks)
            ]
        ),
        catalogue=_catalogue(plan, size, len(names)),
        course=course.compare(reference()),
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
    """Write the tables as CSV, and the headline of each arm as `metrics.json`.

    They take their names when all are written, so that a full disk leaves the old ones.
    """
    texts = {
        f"{name}.csv": getattr(results, name).to_csv(index=False, float_format="%.6g")
        for name in TABLES
    }
    headline = {
        row.trained_as: {"test_miou": round(row.test_miou, 4), "val_miou": round(row.val_miou, 4)}
        for row in results.arms.itertuples()
    }
    texts["metrics.json"] = json.dumps(headline, indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    partial = {folder / f"{name}.partial": text for name, text in texts.items()}
    try:
        for file, text in partial.items():
            file.write_text(text)
        for file in partial:
            file.replace(file.with_suffix(""))
    finally:
        for file in partial:
            file.unlink(missing_ok=True)


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
    score = _told(intervals.interval(test, blocks))
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
        "lr": records[0].about["lr_used"],
        "test_passes": len(recipe.passes),
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
    found = [intervals.interval(tests[a], blocks, minus=tests[b], noise=noise) for _, a, b in asked]
    corrected = intervals.holm(np.array([each.p for each in found]))
    rows = [
        _comparison(study, pair, each, blocks, tests, p, len(asked))
        for pair, each, p in zip(asked, found, corrected, strict=True)
    ]
    ends = list(tests)
    if study.kind == "ladder" and len(ends) > 2:
        pair = ("", ends[-1], ends[0])
        whole = intervals.interval(tests[pair[1]], blocks, minus=tests[pair[2]], noise=noise)
        rows.append(_comparison(study, pair, whole, blocks, tests, whole.p, 1))
    return rows


def _pooled(study: Study, tests: dict[str, np.ndarray], measure) -> intervals.SeedNoise | None:
    """Return the noise between seeds that a study's arms share; None if it cannot be told.

    Arms that share their weights, because only testing differs, share their luck and count once.
    With the few degrees of freedom of a pair's own seeds, p-values are no good after a correction
    for many comparisons: see `intervals.interval`.
    """
    trained, seen = {}, set()
    for arm, counts in tests.items():
        training, digest = study.arms[arm].training, hashlib.sha256(counts.tobytes()).digest()
        if training not in trained and digest not in seen:
            trained[training] = counts
            seen.add(digest)
    arms = list(trained.values())
    return intervals.seed_noise(arms, measure) if len(arms) > 1 and len(arms[0]) > 1 else None


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
        "detectable": intervals.detectable(difference, count),
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
            intervals.class_intervals(tests[arm], blocks, minus=tests[against], noise=noise),
            strict=True,
        )
        if share > 0
    ]
    corrected = intervals.holm(np.array([row["p"] for row in rows]))
    return [
        row | {"p_corrected": p, "verdict": verdict(row["difference"], p, trick=True)}
        for row, p in zip(rows, corrected, strict=True)
    ]


def _noise_row(study: str, arm: str, records: list[Record]) -> dict:
    scores = np.array([Confusion(record.counts["test"].sum(0)).miou for record in records])
    sd, low, high = intervals.sd_interval(scores)
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


def _searches(plan: Plan) -> pd.DataFrame:
    """Return what the searches of all arms tried, and which learning rate they chose."""
    tables = []
    for arm, recipe in plan.arms.items():
        if recipe.lr_search != DEFAULTS["lr_search"]:
            table = pd.read_csv(plan.folder(arm, plan.seeds[0]).parent / "search.csv")
            best = table.index == table["val_miou"].idxmax()
            tables.append(table.assign(arm=arm, chosen=best))
    columns = ["arm", "lr", "steps", "val_miou", "seconds", "chosen"]
    return (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    )


def outline(recipe: Recipe, classes: int) -> Segmenter:
    """Return the network that is tested, without numbers and without an auxiliary head."""
    return on_meta(lambda: make_network(recipe.changed({"aux_weight": 0.0}), classes))


def _test_gmacs(plan: Plan, size: tuple[int, int], classes: int) -> dict[str, float]:
    """Return of each arm the multiply-adds of all passes that one test image goes through.

    Each distinct network is built once, and counted once at each size: most arms share theirs.
    """
    networks, counted, found = {}, {}, {}
    for arm, recipe in plan.arms.items():
        tested = network_alone(recipe.changed({"aux_weight": 0.0}))
        if tested not in networks:
            networks[tested] = on_meta(partial(make_network, tested, classes))
        sizes = [tuple(max(round(scale * side), 1) for side in size) for scale in recipe.passes]
        for each in sizes:
            if (tested, each) not in counted:
                counted[tested, each] = cost.multiply_adds(networks[tested], each)
        found[arm] = sum(counted[tested, each] for each in sizes)
    return found


def _costs(plan: Plan, size: tuple[int, int], classes: int) -> pd.DataFrame:
    """Return each network's cost at the study's image size, on the device at hand."""
    device = default_device()
    precision = precision_on(device)
    bf16 = precision == "bf16"
    arms = {}  # those of the study that compares most networks come first
    for recipe in [*plan.compared.arms.values(), *plan.arms.values()]:
        arms.setdefault(recipe.architecture, plan.arm(recipe))
    networks = {name: weighted(plan, arm, classes) for name, arm in arms.items()}
    scenes = Scenes.load(plan.prepared, "test")
    looked = torch.from_numpy(np.array(scenes.images[:: -(-len(scenes) // FIELD_IMAGES)]))
    fixed = {}
    for name, network in networks.items():
        fixed[name] = {
            "parameters": cost.parameters(network),
            "gmacs": cost.multiply_adds(network, size),
            "memory_mib": cost.peak_memory(network, size, device=device, bf16=bf16),
            "field": cost.theoretical_field(network),
            "effective_field": cost.field_side(
                cost.effective_field(network, looked, device=device)
            ),
        }
    timed = cost.latencies(networks, size, device=device, bf16=bf16, repeats=60)
    at_best = {
        name: cost.throughput(network, size, device=device, bf16=bf16, seconds=THROUGHPUT_SECONDS)
        for name, network in networks.items()
    }
    where = {
        "height": size[0],
        "width": size[1],
        "device": device_name(device),
        "precision": precision,
    }
    rows = [
        {"network": name, **fixed[name], **timed[name], **at_best[name], **where}
        for name in networks
    ]
    return pd.DataFrame(rows)


def weighted(plan: Plan, arm: str, classes: int) -> Segmenter:
    """Return an arm's network with the weights of the first seed, without an auxiliary head."""
    recipe = plan.arms[arm].changed({"aux_weight": 0.0})
    network = make_network(recipe, classes)
    file = plan.folder(arm, plan.seeds[0]) / "weights.pt"
    weights = torch.load(file, weights_only=True, map_location="cpu")
    network.load_state_dict({n: w for n, w in weights.items() if not n.startswith("auxiliary.")})
    return network.eval()


def _catalogue(plan: Plan, size: tuple[int, int], classes: int) -> pd.DataFrame:
    """Return parameters and multiply-adds of every network that the settings list."""
    rows = []
    for entry in plan.networks.values():
        row = {"name": entry.name, "network": entry.network}
        try:
            network = on_meta(partial(build, entry.network, classes))
            row |= {
                "parameters": cost.parameters(network),
                "gmacs": cost.multiply_adds(network, size),
            }
        except Exception:  # a library's own, of any kind: a combination it cannot build
            row |= {"parameters": np.nan, "gmacs": np.nan}
        rows.append(row)
    return pd.DataFrame(rows, columns=["name", "network", "parameters", "gmacs"])


def _fronts(
    plan: Plan,
    study: Study,
    rows: dict[str, dict],
    networks: pd.DataFrame,
    tests: dict[str, np.ndarray],
    blocks: np.ndarray,
) -> pd.DataFrame:
    """Return the rows of `fronts` that belong to a study."""
    arms = {arm: plan.arm(recipe) for arm, recipe in study.arms.items()}
    table = pd.DataFrame(
        [
            {"study": study.name, "arm": arm, "label": study.labels[arm], **rows[trained]}
            for arm, trained in arms.items()
        ]
    ).merge(networks.rename(columns={"gmacs": "gmacs_once"}), on="network")
    # a pass at another size takes longer or shorter about as its multiply-adds do
    latency = table["latency_ms"] * table["gmacs"] / table["gmacs_once"]
    table["latency_ms"] = _alike(latency.to_numpy())
    draws = pareto.resampled([tests[trained] for trained in arms.values()], blocks)
    kept = ["study", "arm", "label", "val_miou", "test_miou", "low", "high"]
    return pd.concat(
        [
            table[kept].assign(
                measure=measure,
                cost=table[measure],
                front=pareto.front(table[measure].to_numpy(), table["val_miou"].to_numpy()),
                share=np.where(
                    np.isnan(draws).any(),
                    np.nan,
                    pareto.front(table[measure].to_numpy(), draws).mean(0),
                ),
            )
            for measure in MEASURES
        ]
    )


def _alike(latencies: np.ndarray) -> np.ndarray:
    """Return latencies, those that differ by less than a clock can tell as the least of them."""
    found, first = latencies.copy(), -np.inf
    for index in np.argsort(latencies):
        if latencies[index] > first * (1 + LATENCY_ALIKE):
            first = latencies[index]
        found[index] = first
    return found


def _volumes(
    plan: Plan,
    study: Study,
    fronts: pd.DataFrame,
    tests: dict[str, np.ndarray],
    blocks: np.ndarray,
) -> list[dict]:
    """Return the rows of `volumes` that belong to a study."""
    counts = [tests[plan.arm(recipe)] for recipe in study.arms.values()]
    rows = []
    for measure in MEASURES:
        own = fronts[(fronts["study"] == study.name) & (fronts["measure"] == measure)]
        costs, choice = own["cost"].to_numpy(), own["val_miou"].to_numpy()
        found = _told(pareto.volume_interval(costs, choice, counts, blocks))
        rows.append(
            {
                "study": study.name, "measure": measure, "cheapest": costs.min(),
                "dearest": costs.max(), "networks": len(own), "volume": found.estimate,
                "low": found.low, "high": found.high, "seeds": found.seeds,
                "blocks": len(np.unique(blocks)),
            }
        )  # fmt: skip
    return rows
