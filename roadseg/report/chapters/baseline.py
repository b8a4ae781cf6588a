"""What chapter 2 tells of the course's baseline."""

import numpy as np
import pandas as pd
import torch

from roadseg.analysis import cost
from roadseg.analysis.results import load_network
from roadseg.analysis.tables import Results, reference
from roadseg.config.study import Study
from roadseg.models.build import Segmenter, build
from roadseg.report.findings import epochs, with_interval
from roadseg.report.load import scored
from roadseg.report.names import arm_titles
from roadseg.report.say import name, score

COURSE_CLASSES, COURSE_SIZE = 19, (375, 1242)  # the paper's


def network(study: Study) -> Segmenter:
    """Return the baseline's network as the study has it, with random weights."""
    return build(study.arms[study.baseline].network, len(scored(study).classes))


def arms(study: Study) -> dict[str, str]:
    """Return the arms of the baseline's network by their titles, whatever their recipe."""
    titles = arm_titles(study)
    return {
        titles[arm]: arm
        for arm, recipe in study.arms.items()
        if recipe.network == study.arms[study.baseline].network
    }


def costs(study: Study, baseline: Segmenter) -> dict:
    """Return the parameters and multiply-adds of the baseline, here and at the paper's size."""
    size = scored(study).labels.shape[1:]
    full = build("baseline", COURSE_CLASSES)
    return {
        "full_parameters": f"{cost.parameters(full) / 1e6:.2f}",
        "full_gmacs": cost.multiply_adds(full, COURSE_SIZE),
        "reported": reference()["gmacs"].iloc[0],
        "network": study.arms[study.baseline].network,
        "height": size[0], "width": size[1],
        "parameters": f"{cost.parameters(baseline) / 1e6:.2f}",
        "gmacs": cost.multiply_adds(baseline, size),
    }  # fmt: skip


def scores(study: Study, results: Results) -> dict:
    """Return what the baseline scores, and its best arm on val if that is another."""
    table = results.arms.drop_duplicates("arm").set_index("arm", drop=False)
    row = table.loc[study.baseline]
    own = table.loc[[*arms(study).values()]]
    best = own.loc[own["val_miou"].idxmax()]
    text = ""
    if best["arm"] != row["arm"]:
        title = name(arm_titles(study)[best["arm"]])
        text = f"Its best recipe on val, {title}, reaches **{score(best['test_miou'])}**."
    return {
        "row": row, "bounds": with_interval(row), "longer": text,
        "prior": results.prior["test_miou"].iloc[0], "epochs": epochs(results, [row["arm"]]),
    }  # fmt: skip


def layers(study: Study, baseline: Segmenter) -> pd.DataFrame:
    """Return the baseline's layers at the study's size: `cost.layer_table`."""
    return cost.layer_table(baseline, scored(study).labels.shape[1:])


def feature_maps(study: Study) -> list[np.ndarray]:
    """Return the maps of the trained baseline after each pooling, of the image in the middle."""
    scenes = scored(study)
    trained = load_network(study, study.baseline, len(scenes.classes))
    return cost.pooled_maps(trained, torch.from_numpy(np.array(scenes.images[len(scenes) // 2])))
