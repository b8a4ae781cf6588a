"""Published weights: which there are, that they fit, and that a classifier with them is right."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import skimage.data
import timm
import torch
import torch.nn.functional as F
import torchvision

from roadseg.errors import InputError
from roadseg.models import pretrained
from roadseg.models.build import build

LITE = "tu-tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("network", "weights", "message"),
    [
        ("fcn8s:resnet18", "imagnet", "imagnet: resnet18 has no such weights. Did you mean 'imagenet'?"),
        ("fcn8s:tu-resnet10t", "imgnet", "imgnet: tu-resnet10t has no such weights."),
        ("tv:fcn_resnet50", "coco", "coco: resnet50 has no such weights."),
        ("baseline", "imagenet", "imagenet: 'baseline' has no published weights; leave it out."),
    ],
)  # fmt: skip
def test_published_weights_are_known_by_name(network, weights, message):
    if network != "baseline":
        pretrained.check_published("imagenet", network)
    with pytest.raises(InputError) as caught:
        pretrained.check_published(weights, network)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("encoder", pretrained.PACKAGES)
@pytest.mark.parametrize(
    ("picture", "imagenet_class"), [(skimage.data.chelsea, 285), (skimage.data.coffee, 967)]
)  # Egyptian cat, espresso
def test_the_packaged_weights_classify_a_picture(picture, imagenet_class, encoder):
    if encoder != LITE and not pretrained.find_spec(pretrained.PACKAGES[encoder]):
        pytest.skip("an extra that is not installed")
    classifier = timm.create_model(encoder.removeprefix("tu-"), pretrained=False).eval()
    classifier.load_state_dict(pretrained.packaged_weights(encoder))
    image = torch.from_numpy(picture().transpose(2, 0, 1).copy())[None].float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in
                 (pretrained.PACKAGED_MEAN, pretrained.PACKAGED_STD))  # fmt: skip
    image = F.interpolate((image - mean) / std, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = classifier(image).softmax(1)[0]
    assert probabilities.argmax() == imagenet_class and probabilities.max() > 0.5


@pytest.mark.parametrize("network", ["fcn8s", "smp:unet", "smp:deeplabv3plus", "smp:pspnet"])
def test_every_architecture_gets_the_packaged_weights_and_their_normalisation(network):
    name = f"{network}:{LITE}"
    segmenter, other = build(name, 4).eval(), build(name, 4)
    pretrained.load_encoder(segmenter, "imagenet", name)
    classifier = timm.create_model(
        LITE.removeprefix("tu-"), features_only=True, pretrained=False
    ).eval()
    donor = pretrained.packaged_weights(LITE)
    classifier.load_state_dict({n: donor[n] for n in classifier.state_dict()})
    seen, images = [], torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    segmenter.body.encoder.register_forward_hook(lambda _module, inputs, maps: seen.append(maps))
    with torch.no_grad():
        segmenter(images)
        expected = classifier((images.float() - 127) / 128)
    for feature_map, reference in zip(seen[0][1:4], expected, strict=False):  # beyond, some are dilated
        torch.testing.assert_close(feature_map, reference, rtol=1e-4, atol=1e-4)
    other.load_state_dict(segmenter.state_dict())  # as from a checkpoint
    assert other.mean.unique().tolist() == [127] and other.std.unique().tolist() == [128]


def test_the_record_says_which_file_it_was():
    origin = pretrained.weights_origin("imagenet", f"fcn8s:{LITE}")
    digest = pretrained.file_digest(pretrained.packaged_file(LITE))
    assert digest in origin and "Apache-2.0" in origin and "0.1.0" in origin
    assert pretrained.weights_origin("", "fcn8s:resnet18") == ""
    assert "by its library" in pretrained.weights_origin("hub:imagenet", f"fcn8s:{LITE}")


def test_a_library_s_weights_come_with_their_normalisation(monkeypatch):
    """The library's download, with a stand-in for what it would fetch."""
    donor = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    monkeypatch.setattr(
        pretrained, "get_encoder",
        lambda name, weights: torch.nn.ParameterDict()
        if (name, weights) != ("resnet18", "imagenet") else _Holding(donor),
    )  # fmt: skip
    settings = {"input_space": "RGB", "input_range": [0, 1], "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3}
    monkeypatch.setattr(pretrained, "get_preprocessing_params", lambda name, weights: settings)
    network = build("fcn8s:resnet18", 4)
    pretrained.load_encoder(network, "imagenet", "fcn8s:resnet18")
    assert all(torch.equal(donor[n], v) for n, v in network.body.encoder.state_dict().items())
    expected = 255 * np.array([0.4, 0.5, 0.6])
    np.testing.assert_allclose(network.mean.flatten(), expected, rtol=1e-6)


class _Holding:
    def __init__(self, state):
        self.state_dict = lambda: state


def test_torchvision_s_backbone_is_filled_from_its_classifier(monkeypatch):
    for backbone, name in (
        ("resnet50", "tv:fcn_resnet50"), ("mobilenet_v3_large", "tv:lraspp_mobilenet_v3_large")
    ):  # fmt: skip
        classifier = torchvision.models.get_model(backbone, weights=None).state_dict()
        for name_of in [n for n in classifier if n.endswith("num_batches_tracked")]:
            del classifier[name_of]  # as in its older files
        monkeypatch.setattr(
            torchvision.models.WeightsEnum, "get_state_dict", lambda self, weights=classifier, **_: weights
        )
        network = build(name, 4)
        pretrained.load_encoder(network, "imagenet", name)
        donor = [v for n, v in classifier.items() if not n.startswith(("fc.", "classifier."))]
        encoder = network.body.encoder.state_dict()
        encoder = {n: v for n, v in encoder.items() if not n.endswith("num_batches_tracked")}
        assert len(donor) == len(encoder)
        assert all(torch.equal(a, b) for a, b in zip(donor, encoder.values(), strict=True))


def test_without_a_network_one_sentence_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(pretrained, "get_encoder", offline)
    with pytest.raises(InputError) as caught:
        pretrained.load_encoder(build("fcn8s:resnet18", 4), "imagenet", "fcn8s:resnet18")
    assert "no route to host" in str(caught.value) and LITE in str(caught.value)
