import dataclasses
import json

import pytest
import torch
from strongest import about

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.errors import InputError
from roadseg.predict.weights import Weights, find_run, load_weights, pack
from roadseg.training.loop import make_network


def test_packed_weights_predict_as_before_from_half_the_room(tiny, tmp_path):
    file = tmp_path / "tiny.pt"
    pack(tiny, file)
    loaded = load_weights(str(file))
    assert loaded.about == tiny.about and loaded.recipe == tiny.recipe
    images = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = tiny(images)
        assert (loaded(images) - expected).abs().max() < 0.02 * expected.abs().max()
    whole = sum(value.numel() * value.element_size() for value in tiny.network.state_dict().values())
    assert file.stat().st_size < 0.7 * whole


def test_what_half_precision_cannot_hold_is_kept_whole(tiny, tmp_path):
    network = make_network(tiny.recipe, 3)
    name = next(n for n in network.state_dict() if n.endswith("running_var"))
    network.state_dict()[name].fill_(1e6)
    pack(Weights(about(), network, ""), tmp_path / "large.pt")
    assert (load_weights(str(tmp_path / "large.pt")).network.state_dict()[name] == 1e6).all()


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
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
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
