import json

import numpy as np
import pytest
import torch
from strongest import CLASSES, COLOURS, about

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.errors import InputError
from roadseg.predict import export as module
from roadseg.predict.export import Deployable, compare, export, simplified
from roadseg.predict.predictor import Predictor
from roadseg.predict.weights import Weights, load_weights, pack
from roadseg.training.loop import make_network

onnx = pytest.importorskip("onnx")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The project's root in a folder with the images of the study that `tiny` is of."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    rng = np.random.default_rng(0)
    folder = tmp_path / "data/prepared/tiny"
    folder.mkdir(parents=True)
    split = {"names": list("abcd"), "sequences": list("abcd"), "digest": ""}
    content = {"classes": CLASSES, "colours": COLOURS, "splits": {}, "size": [24, 32], "digest": ""}
    for name in ("train", "test"):
        content["splits"][name] = split
        np.save(folder / f"{name}_images.npy", rng.integers(0, 256, (4, 3, 24, 32), np.uint8))
        np.save(folder / f"{name}_labels.npy", rng.integers(0, 3, (4, 24, 32), np.uint8))
    (folder / "scenes.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def packed(tiny, data):
    pack(tiny, data / "tiny.pt")
    return str(data / "tiny.pt")


@pytest.mark.parametrize(
    "network", ["fcn8s:tu-tf_efficientnet_lite0", "smp:fpn:tu-tf_efficientnet_lite0:64", "dabnet:0.25"]
)
def test_the_simplified_network_computes_the_same(network):
    torch.manual_seed(0)
    network = make_network(Recipe.of({"network": network}), 3).eval()
    images = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(simplified(network)(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_an_exported_file_predicts_pictures_of_any_number_and_size(packed, data, ending, capsys):
    file = data / f"deep/network{ending}"
    export(packed, file)
    assert "100.000 %" in capsys.readouterr().out
    ours, theirs = load_weights(packed), load_weights(str(file))
    assert theirs.about == ours.about
    deployable = Deployable(ours)
    for size in [(1, 24, 32), (3, 24, 32), (2, 50, 61), (1, 7, 100)]:
        images = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8)
        with torch.no_grad():
            labels, p = deployable(images)
            torch.testing.assert_close(theirs(images).exp(), p, atol=1e-4, rtol=0)
        assert labels.shape == size and p.shape == (size[0], 3, *size[1:])
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    one, other = (Predictor(w, torch.device("cpu")).predict(picture) for w in (ours, theirs))
    assert (one.labels == other.labels).mean() > 0.999
    assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
    with pytest.raises(InputError, match="height"):
        Predictor(theirs, height=12)


def test_the_onnx_file_describes_itself(packed, data):
    export(packed, data / "network.onnx")
    model = onnx.load(data / "network.onnx")
    onnx.checker.check_model(model)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [module.OPSET]
    (given,) = model.graph.input
    sides = given.type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 3, "height", "width"]
    held = json.loads({entry.key: entry.value for entry in model.metadata_props}["roadseg"])
    assert held["classes"] == CLASSES and held["colours"] == COLOURS


def test_eight_bits_take_less_room_and_are_compared(packed, data, capsys):
    export(packed, data / "whole.onnx")
    export(packed, data / "small.onnx", int8=True)
    assert (data / "small.onnx").stat().st_size < 0.8 * (data / "whole.onnx").stat().st_size
    assert "labels are equal" in capsys.readouterr().out.splitlines()[-1]


def test_a_difference_of_two_networks_is_measured(tiny):
    class Shifted(torch.nn.Module):
        body = None

        def forward(self, images):
            logits = tiny(images)
            logits[:, 0, :6] += 100
            return logits

    images = np.random.default_rng(0).integers(0, 256, (2, 3, 24, 32), np.uint8)
    other = Weights(about(), Shifted(), "")
    assert compare(tiny, tiny, images) == (0, 1)
    with torch.no_grad():
        p = tiny(torch.from_numpy(images)).softmax(1)
    largest, equal = compare(tiny, other, images)
    assert largest == pytest.approx((1 - p[:, 0, :6]).max().item(), abs=1e-5)
    kept = (p[:, :, :6].argmax(1) == 0).float().mean()
    assert equal == pytest.approx(0.75 + 0.25 * kept.item())


def test_what_cannot_be_exported_is_refused(tiny, packed, data):
    with pytest.raises(InputError, match="network.tflite"):
        export(packed, data / "network.tflite")
    with pytest.raises(InputError, match="--int8 is for .onnx"):
        export(packed, data / "network.pt2", int8=True)
    recipe = tiny.about.recipe | {"test_scales": [1.0, 1.5]}
    pack(Weights(about(name="tiny/fcn/0", recipe=recipe), tiny.network, ""), data / "scales.pt")
    with pytest.raises(InputError, match="several scales"):
        export(str(data / "scales.pt"), data / "network.onnx")
    export(packed, data / "network.pt2")
    for ending in (".onnx", ".pt"):
        with pytest.raises(InputError, match="exported file"):
            export(str(data / "network.pt2"), data / f"again{ending}")
    assert not (data / "again.onnx").exists()


def test_weights_whose_data_are_elsewhere_are_compared_on_drawn_scenes(packed, data, capsys):
    (data / "data/prepared/tiny/scenes.json").unlink()
    export(packed, data / "network.pt2")
    assert "5 drawn scenes" in capsys.readouterr().out
    with pytest.raises(InputError, match="no prepared data"):
        export(packed, data / "network.onnx", int8=True)


def test_files_from_elsewhere_are_refused(data):
    tensor = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [tensor], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, data / "other.onnx")
    program = torch.export.export(torch.nn.Identity(), (torch.zeros(1),))
    torch.export.save(program, data / "other.pt2")
    (data / "broken.onnx").write_bytes(b"nothing")
    (data / "broken.pt2").write_bytes(b"nothing")
    for name in ("other.onnx", "other.pt2", "broken.onnx", "broken.pt2"):
        with pytest.raises(InputError, match=name):
            load_weights(str(data / name))
