"""From the records of the runs to the tables that the report reads."""

import dataclasses
import io
import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from roadseg.analysis import cost, intervals, pareto
from roadseg.analysis.intervals import Interval
from roadseg.analysis.tables import (
    LEVEL,
    TABLES,
    Results,
    group_similar_costs,
    with_questions,
    write_together,
)
from roadseg.config.questions import Network, Question
from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.config.study import Study, network_recipe
from roadseg.data import scenes, survey
from roadseg.data.scenes import Scenes
from roadseg.errors import InputError
from roadseg.models.build import Segmenter, build, on_meta
from roadseg.training import metrics
from roadseg.training.device import default_device, device_name, precision_on
from roadseg.training.loop import make_network
from roadseg.training.metrics import Confusion
from roadseg.training.score import BINS, calibration_error
from roadseg.training.store import Record, failure
from roadseg.training.workers import values_of

MEASURES = ("gmacs", "latency_ms", "parameters")  # of cost, each with a front of its own
THROUGHPUT_SECONDS = 1.5  # of timing, for each network
FIELD_IMAGES = 8  # test images that an effective receptive field is averaged over
COMPARISON_COLUMNS = [
    "question", "trick", "arm", "against", "difference", "low", "high", "p", "p_corrected", "tests",
    "detectable", "seed_sd", "seeds", "blocks", "effective_blocks", "verdict", "samples",
]  # fmt: skip
PARETO_COLUMNS = [
    "question", "arm", "label", "val_miou", "test_miou", "low", "high", "measure", "cost",
    "pareto_optimal", "pareto_share",
]  # fmt: skip


def collect(study: Study) -> Results:
    """Compute all tables from the records of the runs that the finished questions ask for.

    Raises
    ------
    InputError : no question is finished, a run is of other settings, or all arms failed
    """
    requested = study
    study, _ = finished(requested)
    _check_recipes(study)
    outcomes = _outcomes(study)
    if outcomes["failed"].all():
        raise InputError(
            f"{study.name}: no arm came to its end. The first, {outcomes['arm'][0]}: "
            f"{outcomes['why'][0]}"
        )
    study = study.without(set(outcomes["arm"][outcomes["failed"] > 0]))
    records = {
        arm: {seed: Record.read(study.run_folder(arm, seed)) for seed in study.seeds_of(arm)}
        for arm in study.arms
    }
    _check_precision(records)
    about = scenes.read_about(study.prepared)
    blocks = scenes.blocks(about["splits"]["test"]["sequences"], study.data["block"])
    names = about["classes"]
    paired = {arm: [records[arm][seed] for seed in study.seeds] for arm in study.arms}
    tests = {arm: _test_sums(arm_records) for arm, arm_records in paired.items()}
    size = tuple(about["size"])
    gmacs = _test_gmacs(study, size, len(names))
    rows = {
        arm: _arm_row(arm_records, blocks) | {"gmacs": gmacs[arm]}
        for arm, arm_records in paired.items()
    }
    networks = _costs(study, size, len(names))
    questions = study.questions.values()
    network_questions = [question for question in questions if question.kind == "networks"]
    pareto_rows = [
        _pareto_rows(study, question, rows, networks, tests, blocks)
        for question in network_questions
    ]
    pareto_rows = (
        pd.concat(pareto_rows, ignore_index=True)
        if pareto_rows
        else pd.DataFrame(columns=PARETO_COLUMNS)
    )
    question_tests = {
        question.name: {arm: tests[arm] for arm in question.arms} for question in questions
    }
    return Results(
        runs=_with_weights_of(
            pd.DataFrame(
                [_run_row(arm, record) for arm in study.arms for record in records[arm].values()]
            )
        ),
        arms=pd.DataFrame(
            [
                {"question": question.name, "arm": arm, **rows[arm]}
                for question in questions
                for arm in question.arms
            ]
        ),
        classes=pd.concat(
            [_class_rows(arm, arm_records, blocks, names) for arm, arm_records in paired.items()],
            ignore_index=True,
        ),
        comparisons=pd.DataFrame(
            [
                row
                for question in questions
                for row in _comparisons(question, question_tests[question.name], blocks)
            ],
            columns=COMPARISON_COLUMNS,
        ),
        class_effects=pd.DataFrame(
            [
                row
                for question in questions
                for row in _class_effects(question, question_tests[question.name], blocks, names)
            ],
            columns=["question", "trick", "class", "pixel_share", "difference", "low", "high", "p",
                     "p_corrected", "verdict"],
        ),
        noise=pd.DataFrame(
            [
                _noise_row(question.name, arm, list(records[arm].values()), blocks)
                for question in questions
                for arm in question.arms
                if question.kind == "noise"
            ],
            columns=["question", "arm", "seeds", "blocks", "mean", "low", "high", "sd", "sd_low",
                     "sd_high"],
        ),
        searches=_searches(study),
        networks=networks,
        pareto=pareto_rows,
        prior=pd.DataFrame([_prior(study.prepared, blocks)]),
        catalogue=_catalogue(study, size, len(names)),
        curves=pd.concat(
            [
                record.curve.assign(run=f"{arm}-s{seed}", arm=arm, seed=seed)
                for arm in study.arms
                for seed, record in records[arm].items()
            ],
            ignore_index=True,
        ),
        reliability=pd.concat(
            [_reliability_rows(arm, arm_records) for arm, arm_records in paired.items()],
            ignore_index=True,
        ),
        outcomes=outcomes,
        unfinished=_unfinished(requested),
        block_lengths=_block_lengths(study, about["splits"]["test"]["sequences"], question_tests),
    )  # fmt: skip


def finished(study: Study) -> tuple[Study, list[str]]:
    """Return the study with only the questions whose runs are all there, and the others' names.

    A run that failed is there: that it did is its result.

    Raises
    ------
    InputError : no question is finished
    """
    others = list(_unfinished(study)["question"])
    if len(others) == len(study.questions):
        raise InputError(f"{study.name}: no question is finished; run 'make report'.")
    return with_questions(study, study.questions.keys() - set(others)), others


def _unfinished(study: Study) -> pd.DataFrame:
    """Return the rows of `unfinished`."""
    rows = []
    for question in study.questions.values():
        folders = _requested_runs(study, question)
        missing = sum(_read_outcome(folder) is None for folder in folders)
        if missing:
            rows.append({"question": question.name, "missing": missing, "runs": len(folders)})
    return pd.DataFrame(rows, columns=["question", "missing", "runs"])


def _requested_runs(study: Study, question: Question) -> dict[Path, Recipe]:
    """Return the runs that a question asks for: the folder of each, and its recipe."""
    return {
        study.build / "runs" / question.name / arm / f"s{seed}": recipe.changed({"seed": seed})
        for arm, recipe in question.arms.items()
        for seed in study.question_seeds(question)
    }


def _read_outcome(folder: Path) -> dict | None:
    """Return what a run's folder says of its recipe and outcome; None if the run is missing."""
    files = [folder / name for name in ("record.json", "failed.json")]
    return next((json.loads(file.read_text()) for file in files if file.is_file()), None)


def _check_precision(records: dict[str, dict[int, Record]]) -> None:
    """Raise InputError unless all runs were trained in one precision."""
    runs = {}
    for arm, of_arm in records.items():
        for seed, record in of_arm.items():
            runs.setdefault(record.about["precision"], f"{arm}-s{seed}")
    if len(runs) > 1:
        examples = " and ".join(f"{precision} (such as {run})" for precision, run in runs.items())
        raise InputError(
            f"runs were trained in {examples}; they would not be compared like with like. Set "
            "base: precision in params.yaml to one of them, and run 'make report' again."
        )


def _check_recipes(study: Study) -> None:
    """Raise InputError for a run that was trained before its settings were changed."""
    for question in study.questions.values():
        for folder, recipe in _requested_runs(study, question).items():
            if Recipe.of(_read_outcome(folder)["recipe"]) != recipe:
                raise InputError(
                    f"{folder}: is of other settings than {study.params} has now. "
                    "Run 'make report' again."
                )


def _outcomes(study: Study) -> pd.DataFrame:
    """Return one row per arm: what its runs' trainings took, and how they ended."""
    rows = []
    for arm in study.arms:
        folders = [study.run_folder(arm, seed) for seed in study.seeds_of(arm)]
        why = [failure(folder) for folder in folders]
        about = [content["about"] for f in folders if "about" in (content := _read_outcome(f))]
        joules = [each.get("joules") for each in about]
        metered = len(joules) == len(folders) and None not in joules
        rows.append(
            {
                "arm": arm,
                "seconds": sum(each["seconds"] + each["start_seconds"] for each in about)
                if about
                else np.nan,
                "joules": sum(joules) if metered else np.nan,
                "failed": sum(map(bool, why)),
                "why": next(filter(None, why), ""),
            }
        )
    return pd.DataFrame(rows).astype({"seconds": float, "joules": float})


def compact_counts(study: Study) -> dict[str, np.ndarray]:
    """Return what IoU needs of each run's test images, `class_sums` int32 (N, 3, K), by run."""
    study, _ = finished(study)
    outcomes = _outcomes(study)
    class_sums = {}
    for arm in outcomes["arm"][outcomes["failed"] == 0]:
        for seed in study.seeds_of(arm):
            with np.load(study.run_folder(arm, seed) / "counts.npz") as counts:
                class_sums[f"{arm}-s{seed}"] = metrics.class_sums(counts["test"]).astype(np.int32)
    return class_sums


def write(results: Results, counts: dict[str, np.ndarray], folder: Path) -> None:
    """Write the tables as CSV and `compact_counts` into `folder`/tables, and `metrics.json` beside.

    That one has the headline of each arm. See `write_together`.
    """
    tables = {
        f"{name}.csv": getattr(results, name).to_csv(index=False, float_format="%.6g").encode()
        for name in TABLES
    }
    headline = {
        row.arm: {"test_miou": round(row.test_miou, 4), "val_miou": round(row.val_miou, 4)}
        for row in results.arms.itertuples()
    }
    headline["location prior"] = {
        name: round(results.prior[name].iloc[0], 4) for name in ("test_miou", "val_miou")
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **counts)
    tables["counts.npz"] = packed.getvalue()
    write_together(
        {folder / "tables" / name: content for name, content in tables.items()}
        | {folder / "metrics.json": (json.dumps(headline, indent=1) + "\n").encode()}
    )
    for file in (folder / "tables").iterdir():
        if file.name not in tables:  # of an earlier version
            file.unlink()


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


def _prior(prepared: Path, blocks: np.ndarray) -> dict:
    """Return the scores of the location prior: what can be had without looking at an image."""
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val", "test")}
    best = survey.location_prior(splits["train"])
    counts = {
        split: np.concatenate(
            [
                metrics.count(
                    torch.from_numpy(best)[None],
                    torch.from_numpy(scenes.read(scenes_of_split.labels, slice(i, i + 1))),
                    len(scenes_of_split.classes),
                )
                for i in range(len(scenes_of_split))
            ]
        )
        for split, scenes_of_split in splits.items() if split != "train"
    }  # fmt: skip
    # it has no seeds: as it would be with any
    test_sums = np.stack([metrics.class_sums(counts["test"])] * intervals.MIN_SEEDS)
    score = intervals.interval(test_sums, blocks)
    return {
        "val_miou": metrics.miou(counts["val"].sum(0)),
        "test_miou": score.estimate,
        **_bounds(score),
        "accuracy": Confusion(counts["test"].sum(0)).accuracy,
    }


def _with_weights_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Add `weights_of`: of the runs of one training, the first, whose weights the others have.

    It is empty for the first itself.
    """
    first = runs.groupby("training")["run"].transform("first")
    return runs.assign(weights_of=np.where(first == runs["run"], "", first))


def _test_sums(records: list[Record]) -> np.ndarray:
    """Return `metrics.class_sums` of test images, int64 (S, N, 3, K)."""
    return np.stack([metrics.class_sums(record.counts["test"]) for record in records])


def _boundary(records: list[Record]) -> np.ndarray:
    """Return the boundary IoU of each class, mean over seeds, float (K,)."""
    sums = np.stack([record.boundary.sum(0) for record in records])
    return metrics.iou_of_sums(sums).mean(0)


def _arm_row(records: list[Record], blocks: np.ndarray) -> dict:
    """Return an arm's scores: `test_miou` is the mean over seeds of each seed's mIoU."""
    score = intervals.interval(_test_sums(records), blocks)
    recipe, tests = records[0].recipe, [Confusion(r.counts["test"].sum(0)) for r in records]
    per_seed = np.array([test.miou for test in tests])
    return {
        "network": recipe.architecture,
        "test_miou": score.estimate,
        **_bounds(score),
        "seeds": score.seeds,
        "blocks": len(np.unique(blocks)),
        "effective_blocks": score.blocks,
        "seed_sd": per_seed.std(ddof=1) if len(per_seed) > 1 else np.nan,
        "val_miou": np.mean([Confusion(r.counts["val"].sum(0)).miou for r in records]),
        "course_miou": np.mean([test.course_miou for test in tests]),
        "accuracy": np.mean([test.accuracy for test in tests]),
        "boundary_iou": pd.Series(_boundary(records)).mean(),  # NaN where nothing has a contour
        "calibration_error": np.mean([calibration_error(r.reliability) for r in records]),
        # Whatever ran beside it made a training longer, never shorter.
        "train_seconds": np.min([r.about["seconds"] + r.about["start_seconds"] for r in records]),
        "lr": records[0].about["lr_used"],
        "test_passes": len(recipe.passes),
    }


def _bounds(score: Interval) -> dict[str, float]:
    """Return the ends of the interval of a score, which lies in 0..1; NaN stays."""
    return {"low": max(score.low, 0.0), "high": min(score.high, 1.0)}


def _class_rows(
    arm: str, records: list[Record], blocks: np.ndarray, names: list[str]
) -> pd.DataFrame:
    sums = _test_sums(records)
    class_intervals = intervals.class_intervals(sums, blocks)
    truth = sums[0, :, 1].sum(0)
    return pd.DataFrame(
        {
            "arm": arm,
            "class": names,
            "iou": metrics.iou_of_sums(sums.sum(1)).mean(0),
            "low": [_bounds(each)["low"] for each in class_intervals],
            "high": [_bounds(each)["high"] for each in class_intervals],
            "boundary_iou": _boundary(records),
            "effective_blocks": [each.blocks for each in class_intervals],
            "pixel_share": truth / truth.sum(),
        }
    )


def _reliability_rows(arm: str, records: list[Record]) -> pd.DataFrame:
    pixels, correct, confidence = np.sum([record.reliability for record in records], axis=0)
    edges = np.arange(BINS) / BINS
    return pd.DataFrame(
        {"arm": arm, "above": edges, "pixels": pixels, "correct": correct, "confidence": confidence}
    )


def _comparisons(
    question: Question, tests: dict[str, np.ndarray], blocks: np.ndarray
) -> list[dict]:
    """Return the rows of `comparisons` that belong to a question.

    Parameters
    ----------
    question : which arms are compared
    tests : arm -> `metrics.class_sums` int64 (S, N, 3, K)
    blocks : int (N,)
    """
    pairs = list(question.effects)
    if question.kind == "networks":
        pairs = [("", arm, against) for against, arm in itertools.combinations(tests, 2)]
    differences = [intervals.interval(tests[a], blocks, baseline=tests[b]) for _, a, b in pairs]
    corrected = intervals.holm(np.array([each.p for each in differences]))
    rows = [
        _comparison(question, pair, each, blocks, tests, p, len(pairs))
        for pair, each, p in zip(pairs, differences, corrected, strict=True)
    ]
    ends = list(tests)
    if question.kind == "ladder" and len(ends) > 2:
        pair = ("", ends[-1], ends[0])
        whole = intervals.interval(tests[pair[1]], blocks, baseline=tests[pair[2]])
        rows.append(_comparison(question, pair, whole, blocks, tests, whole.p, 1))
    return rows


def _block_lengths(
    study: Study, sequences: list[str], question_tests: dict[str, dict[str, np.ndarray]]
) -> pd.DataFrame:
    """Return the rows of `block_lengths`."""
    length, rows = study.data["block"], []
    for other in (length // 2, 2 * length) if length > 1 else ():
        for name, tests in question_tests.items():
            judged = _comparisons(study.questions[name], tests, scenes.blocks(sequences, other))
            rows += [row | {"block": other} for row in judged]
    columns = ["question", "trick", "arm", "against", "block", "effective_blocks", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _comparison(
    question: Question,
    pair: tuple[str, str, str],
    difference: Interval,
    blocks: np.ndarray,
    tests: dict[str, np.ndarray],
    corrected: float,
    count: int,
) -> dict:
    trick, arm, against = pair
    per_seed = metrics.miou_of_sums(tests[arm].sum(1)) - metrics.miou_of_sums(tests[against].sum(1))
    return {
        "question": question.name,
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
        "effective_blocks": difference.blocks,
        "verdict": verdict(difference.estimate, corrected, trick=bool(trick)),
        "samples": _samples_text(difference, tests[arm], tests[against], blocks),
    }


def _samples_text(
    difference: Interval, sums: np.ndarray, baseline: np.ndarray, blocks: np.ndarray
) -> str:
    """Return, where there is no interval, the difference of each seed or else of each block."""
    if np.isfinite(difference.low):
        return ""
    if difference.seeds < intervals.MIN_SEEDS:
        pairs = [(arm.sum(0), other.sum(0)) for arm, other in zip(sums, baseline, strict=True)]
    else:
        pairs = [
            (sums[:, blocks == b].sum((0, 1)), baseline[:, blocks == b].sum((0, 1)))
            for b in np.unique(blocks)
        ]
    return " ".join(
        f"{metrics.miou_of_sums(arm) - metrics.miou_of_sums(other):.4f}" for arm, other in pairs
    )


def _class_effects(
    question: Question, tests: dict[str, np.ndarray], blocks: np.ndarray, names: list[str]
) -> list[dict]:
    """Return a question's rows of `class_effects`, if it is about tricks; see `_comparisons`."""
    if not question.effects:
        return []
    truth = next(iter(tests.values()))[0, :, 1].sum(0)
    rows = [
        {
            "question": question.name,
            "trick": trick,
            "class": name,
            "pixel_share": share,
            "difference": each.estimate,
            "low": each.low,
            "high": each.high,
            "p": each.p,
        }
        for trick, arm, against in question.effects
        for name, share, each in zip(
            names,
            truth / truth.sum(),
            intervals.class_intervals(tests[arm], blocks, baseline=tests[against]),
            strict=True,
        )
        if share > 0
    ]
    corrected = intervals.holm(np.array([row["p"] for row in rows]))
    return [
        row | {"p_corrected": p, "verdict": verdict(row["difference"], p, trick=True)}
        for row, p in zip(rows, corrected, strict=True)
    ]


def _noise_row(question: str, arm: str, records: list[Record], blocks: np.ndarray) -> dict:
    score = intervals.interval(_test_sums(records), blocks)
    scores = np.array([Confusion(record.counts["test"].sum(0)).miou for record in records])
    sd, low, high = intervals.sd_interval(scores)
    return {
        "question": question, "arm": arm, "seeds": len(scores), "blocks": len(np.unique(blocks)),
        "mean": scores.mean(),
        **_bounds(score),
        "sd": sd, "sd_low": low, "sd_high": high,
    }  # fmt: skip


def verdict(difference: float, p: float, *, trick: bool) -> str:
    """Return the verdict of a comparison at a corrected p."""
    none, more, less = (
        ("no effect found", "helps", "hurts")
        if trick
        else ("no difference found", "better", "worse")
    )
    if not p < LEVEL:  # NaN too
        return none
    return more if difference > 0 else less


def _searches(study: Study) -> pd.DataFrame:
    """Return what the searches of all arms tried, and which learning rate they chose."""
    tables = []
    for arm, recipe in study.arms.items():
        if recipe.lr_search != DEFAULTS["lr_search"]:
            table = pd.read_csv(study.run_folder(arm, study.seeds[0]).parent / "search.csv")
            best = table.index == table["val_miou"].idxmax()
            tables.append(table.assign(arm=arm, chosen=best))
    columns = ["arm", "lr", "steps", "val_miou", "seconds", "chosen"]
    return (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    )


def meta_network(recipe: Recipe, classes: int) -> Segmenter:
    """Return the network that is tested, without numbers and without an auxiliary head."""
    return on_meta(lambda: make_network(recipe.changed({"aux_weight": 0.0}), classes))


def _test_gmacs(study: Study, size: tuple[int, int], classes: int) -> dict[str, float]:
    """Return of each arm the multiply-adds of all passes that one test image goes through.

    Each distinct network is built once, and counted once at each size: most arms share theirs.
    """
    networks, counted_gmacs, gmacs = {}, {}, {}
    for arm, recipe in study.arms.items():
        tested = network_recipe(recipe.changed({"aux_weight": 0.0}))
        if tested not in networks:
            networks[tested] = on_meta(partial(make_network, tested, classes))
        sizes = [tuple(max(round(scale * side), 1) for side in size) for scale in recipe.passes]
        for each in sizes:
            if (tested, each) not in counted_gmacs:
                counted_gmacs[tested, each] = cost.multiply_adds(networks[tested], each)
        gmacs[arm] = sum(counted_gmacs[tested, each] for each in sizes)
    return gmacs


def _costs(study: Study, size: tuple[int, int], classes: int) -> pd.DataFrame:
    """Return each network's cost at the study's image size, on the device at hand."""
    device = default_device()
    precision = precision_on(device, next(iter(study.arms.values())).precision)
    bf16 = precision == "bf16"
    arms = {}  # those of the question that compares most networks come first
    first = study.network_question.arms if study.network_question else ()
    for arm in [*first, *study.arms]:
        arms.setdefault(study.arms[arm].architecture, arm)
    networks = {name: load_network(study, arm, classes) for name, arm in arms.items()}
    test = Scenes.load(study.prepared, "test")
    field_images = torch.from_numpy(np.array(test.images[:: -(-len(test) // FIELD_IMAGES)]))

    options = {"size": size, "field_images": field_images, "device": device, "bf16": bf16}
    jobs = {name: partial(_counted_costs, network, **options) for name, network in networks.items()}
    counted_costs = values_of(jobs, device)
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
        {"network": name, **counted_costs[name], **timed[name], **at_best[name], **where}
        for name in networks
    ]
    return pd.DataFrame(rows)


def _counted_costs(
    network: Segmenter,
    *,
    size: tuple[int, int],
    field_images: Tensor,
    device: torch.device,
    bf16: bool,
) -> dict:
    """Return the costs of a network that are counted, not timed."""
    effective = cost.effective_field(network, field_images, device=device)
    return {
        "parameters": cost.parameters(network),
        "gmacs": cost.multiply_adds(network, size),
        "memory_mib": cost.peak_memory(network, size, device=device, bf16=bf16),
        "effective_field": cost.field_side(effective),
    }


def load_network(study: Study, arm: str, classes: int) -> Segmenter:
    """Return an arm's network with the weights of the first seed, without an auxiliary head."""
    recipe = study.arms[arm].changed({"aux_weight": 0.0})
    network = make_network(recipe, classes)
    file = study.run_folder(arm, study.seeds[0]) / "weights.pt"
    weights = torch.load(file, weights_only=True, map_location="cpu")
    network.load_state_dict({n: w for n, w in weights.items() if not n.startswith("auxiliary.")})
    return network.eval()


def _catalogue(study: Study, size: tuple[int, int], classes: int) -> pd.DataFrame:
    """Return parameters and multiply-adds of every network that the settings list."""
    entries = study.networks.values()
    jobs = {entry.name: partial(_catalogue_row, entry, size, classes) for entry in entries}
    rows = list(values_of(jobs, torch.device("cpu")).values())
    return pd.DataFrame(rows, columns=["name", "network", "parameters", "gmacs"])


def _catalogue_row(entry: Network, size: tuple[int, int], classes: int) -> dict:
    row = {"name": entry.name, "network": entry.network}
    try:
        network = on_meta(partial(build, entry.network, classes))
        return row | {
            "parameters": cost.parameters(network),
            "gmacs": cost.multiply_adds(network, size),
        }
    except Exception:  # a library's own, of any kind: a combination it cannot build
        return row | {"parameters": np.nan, "gmacs": np.nan}


def _pareto_rows(
    study: Study,
    question: Question,
    rows: dict[str, dict],
    networks: pd.DataFrame,
    tests: dict[str, np.ndarray],
    blocks: np.ndarray,
) -> pd.DataFrame:
    """Return the rows of `pareto` that belong to a question."""
    table = pd.DataFrame(
        [
            {"question": question.name, "arm": arm, "label": question.labels[arm], **rows[arm]}
            for arm in question.arms
        ]
    ).merge(networks.rename(columns={"gmacs": "gmacs_once"}), on="network")
    # a pass at another size takes longer or shorter about as its multiply-adds do
    latency = table["latency_ms"] * table["gmacs"] / table["gmacs_once"]
    table["latency_ms"] = group_similar_costs(latency.to_numpy())
    draws = pareto.resampled([tests[arm] for arm in question.arms], blocks)
    has_intervals = table["low"].notna().all()
    columns = ["question", "arm", "label", "val_miou", "test_miou", "low", "high"]
    return pd.concat(
        [
            table[columns].assign(
                measure=measure,
                cost=table[measure],
                pareto_optimal=pareto.pareto_optimal(
                    table[measure].to_numpy(), table["val_miou"].to_numpy()
                ),
                pareto_share=pareto.pareto_optimal(table[measure].to_numpy(), draws).mean(0)
                if has_intervals
                else np.nan,
            )
            for measure in MEASURES
        ]
    )
