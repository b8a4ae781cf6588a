import dataclasses
import io
import json
import lzma

import pytest
import torch
from strongest import about

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.errors import InputError
from roadseg.predict.weights import Weights, find_run, load_weights, pack
from roadseg.training.loop import make_network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_packed_weights_predict_as_before_from_half_the_room(precision, tmp_path):
    recipe = {"network": "fcn8s:tu-test_resnet", "precision": precision}
    torch.manual_seed(0)
    weights = Weights(about(recipe=recipe), make_network(Recipe.of(recipe), 3), "")
    state = weights.network.state_dict()
    next(v for name, v in state.items() if name.endswith("running_var")).fill_(1e6)  # more than fp16 has
    file = tmp_path / "tiny.pt"
    pack(weights, file)
    loaded = load_weights(str(file))
    assert loaded.about == weights.about and loaded.recipe == weights.recipe
    images = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected, got = weights(images).float(), loaded(images).float()
    largest = (got - expected).abs().max() / expected.abs().max()
    assert largest == 0 if precision == "bf16" else largest < 0.02
    whole = sum(value.numel() * value.element_size() for value in state.values())
    assert file.stat().st_size < 0.6 * whole


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no weights", {"weights": {}}, {"a": torch.zeros(2)}, torch.zeros(3),
        {**dataclasses.asdict(about()), "weights": {"a": torch.zeros(1)}},
        {**dataclasses.asdict(about(colours=[[0, 0, 0]])), "weights": {}},
        {**dataclasses.asdict(about(recipe={"network": "nothing"})), "weights": {}},
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(content, tmp_path):
    file = tmp_path / "other.pt"
    if not isinstance(content, bytes):
        packed = io.BytesIO()
        torch.save(content, packed)
        content = lzma.compress(packed.getvalue())
    file.write_bytes(content)
    with pytest.raises(InputError, match="other.pt"):
        load_weights(str(file))


def write_run(root, study, arm, seed, *, classes=3, digest="d", recipe=None):
    recipe = recipe or {"network": "fcn8s:tu-test_resnet", "aux_weight": 0.4}
    folder = root / f"build/{study}/runs/question/{arm}/s{seed}"
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    network = make_network(Recipe.of(recipe), classes)
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "record.json").write_text(
        json.dumps({"recipe": recipe, "about": {"data_digest": "d"}})
    )
    prepared = root / "data/prepared" / study
    prepared.mkdir(parents=True, exist_ok=True)
    scenes = {"classes": list("abc"), "colours": [[0, 0, 0]] * 3, "size": [24, 32], "digest": digest}
    (prepared / "scenes.json").write_text(json.dumps(scenes))
    return network


def test_runs_are_found_by_arm_study_and_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(InputError, match="no finished runs"):
        load_weights("fcn")
    networks = {seed: write_run(tmp_path, "street", "fcn", seed) for seed in (2, 10)}
    write_run(tmp_path, "lane", "unet", 0)
    assert find_run("fcn").name == "s2" and find_run("street/fcn/10").name == "s10"
    loaded = load_weights("street/fcn/10")
    assert loaded.about.name == "street/fcn/10" and loaded.about.values is None
    images = torch.randint(0, 256, (1, 3, 24, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(images), networks[10].eval()(images))
    assert not any("auxiliary" in name for name in loaded.network.state_dict())
    with pytest.raises(InputError, match="'street/fcn'"):
        load_weights("street/fnc")
    with pytest.raises(InputError, match="fcn/3"):
        load_weights("street/fcn/3")
    write_run(tmp_path, "lane", "fcn", 0)
    with pytest.raises(InputError, match="lane/fcn, street/fcn"):
        load_weights("fcn")


def test_a_run_of_other_data_than_are_prepared_now_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_run(tmp_path, "street", "fcn", 0, digest="another")
    with pytest.raises(InputError, match="make report STUDY=street"):
        load_weights("fcn")


def test_shipped_weights_have_a_name(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "models/road").mkdir(parents=True)
    pack(tiny, tmp_path / "models/road/weights.pt")
    assert load_weights("road").about == tiny.about
    with pytest.raises(InputError, match="Did you mean 'road'"):
        load_weights("raod")


def test_the_weights_of_the_clone_tell_road_from_sky():
    """Of a picture with a bright upper and a dark lower half, as little as that is of a street."""
    weights = load_weights("camvid")
    picture = torch.full((1, 3, 360, 480), 90, dtype=torch.uint8)
    picture[..., :150, :] = 235
    with torch.no_grad():
        labels = weights(picture).argmax(1)[0]
    assert (labels[:60] == weights.about.classes.index("sky")).float().mean() > 0.5
    assert (labels[-60:] == weights.about.classes.index("road")).float().mean() > 0.5
    assert (paths.ROOT / "models/camvid/weights.pt").stat().st_size < 8e6
