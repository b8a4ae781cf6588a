import json

import numpy as np
import pytest
import torch

from roadseg import train
from roadseg.models import build
from roadseg.recipe import InputError, Recipe

CPU = torch.device("cpu")
TINY = Recipe(network="fcn8s:tu-resnet10t", steps=3, batch_size=2, precision="fp32", lr=0.001)


def quiet(_):
    pass


def test_batches_show_every_scene_once_before_any_twice():
    feed = train.batches(7, 3, torch.Generator().manual_seed(0))
    seen = torch.cat([next(feed) for _ in range(14)]).view(6, 7)
    assert (seen.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(row.tolist()) for row in seen}) > 1


def test_streams_are_named_and_seeded():
    assert train.stream(0, "init") == train.stream(0, "init")
    assert len({train.stream(s, p) for s in (0, 1) for p in ("init", "order", "augment")}) == 6


def test_schedules_by_hand():
    fixed = Recipe(steps=10)
    assert [train.lr_factor(s, fixed) for s in (0, 5, 9)] == [1, 1, 1]
    poly = Recipe(steps=10, schedule="poly", poly_power=2.0)
    assert train.lr_factor(0, poly) == 1
    assert train.lr_factor(5, poly) == pytest.approx(0.25)
    assert train.lr_factor(9, poly) == pytest.approx(0.01)
    warm = Recipe(steps=10, schedule="poly", warmup_steps=4)
    assert [train.lr_factor(s, warm) for s in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert train.lr_factor(4, warm) == 1
    assert train.lr_factor(7, warm) == pytest.approx(0.5**0.9)


def test_poly_agrees_with_torch():
    poly = Recipe(steps=20, schedule="poly")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    for step in range(20):
        assert train.lr_factor(step, poly) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_same_recipe_same_network_other_seed_another(scenes):
    def weights(recipe):
        network, _, _ = train.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    first = weights(TINY)
    assert torch.equal(first, weights(TINY))
    assert not torch.equal(first, weights(TINY.changed({"seed": 1})))


def test_two_arms_of_one_seed_start_alike_and_see_the_same_images(scenes, monkeypatch):
    seen = []
    original = train.augment

    def spy(images, labels, rng, **settings):
        seen.append(images.clone())
        return original(images, labels, rng, **settings)

    monkeypatch.setattr(train, "augment", spy)
    for changes in ({}, {"flip": 0.5, "scale_jitter": 1.5, "optimizer": "adamw"}):
        recipe = TINY.changed(changes)
        train.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_a_few_scenes_can_be_learnt_by_heart(scenes):
    recipe = TINY.changed({"steps": 60, "lr": 0.005})
    few = scenes["train"]
    network, curve, seconds = train.train(recipe, few, few, device=CPU, say=quiet)
    assert curve.loss.iloc[-1] < 0.5 * curve.loss.iloc[0]
    assert curve.val_miou.iloc[-1] > 0.2 > curve.val_miou.dropna().iloc[0]
    assert curve.val_miou.notna().sum() == train.CURVE_POINTS
    assert seconds > 0


def test_the_optimiser_is_the_one_asked_for(scenes):
    """One step of AdamW with weight decay shrinks weights that get no gradient; Adam does not."""
    torch.manual_seed(0)
    norms = {}
    for optimizer in ("adam", "adamw"):
        recipe = TINY.changed({"optimizer": optimizer, "weight_decay": 0.1, "steps": 1, "lr": 0.1})
        network, _, _ = train.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)
        norms[optimizer] = sum(p.norm().item() for p in network.parameters())
    assert norms["adam"] != pytest.approx(norms["adamw"], rel=1e-4)


def test_a_loss_that_explodes_is_named(scenes):
    with pytest.raises(InputError, match="the loss is not finite by step 3 .*; lower lr"):
        recipe = TINY.changed({"network": "baseline:0.1", "lr": 1e30})
        train.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)


def test_evaluation_counts_every_labelled_pixel_once(scenes):
    torch.manual_seed(0)
    network = build(TINY.network, 19)
    counts, predictions = train.evaluate(network, scenes["test"], CPU, TINY)
    labels = np.array(scenes["test"].labels)
    assert counts.shape == (4, 19, 19) and predictions.shape == labels.shape
    assert (counts.sum((1, 2)) == (labels != 255).sum((1, 2))).all()
    for k in range(19):
        expected = ((labels == k) & (predictions == k)).sum((1, 2))
        np.testing.assert_array_equal(counts[:, k, k], expected)
    assert not network.training


def test_bf16_and_fp32_agree_roughly(scenes):
    network = build(TINY.network, 19)
    predictions = [
        train.evaluate(network, scenes["test"], CPU, TINY.changed({"precision": p}))[1]
        for p in ("fp32", "bf16")
    ]
    assert 0.9 < (predictions[0] == predictions[1]).mean() <= 1


def test_the_record_reads_back(prepared, tmp_path):
    lines = []
    record = train.run(TINY, prepared, tmp_path / "run", device=CPU, say=lines.append)
    assert record.recipe == TINY
    assert record.about["digest"] == TINY.digest
    assert {"device", "precision", "seconds", "torch", "data_digest"} <= set(record.about)
    assert record.counts["val"].shape == (2, 19, 19)
    assert len(lines) == 1 + len(record.curve)
    with np.load(tmp_path / "run/predictions.npz") as stored:
        assert stored["test"].shape == (4, 48, 96)
    network = build(TINY.network, 19)
    network.load_state_dict(torch.load(tmp_path / "run/weights.pt", weights_only=True))
    counts, _ = train.evaluate(network, train.Scenes.load(prepared, "test"), CPU, TINY)
    np.testing.assert_array_equal(counts, record.counts["test"])
    assert not list(tmp_path.glob("*.partial"))
    json.loads((tmp_path / "run/record.json").read_text())


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match="holds no finished run. Run 'make report' first."):
        train.Record.read(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_trains_too(prepared, tmp_path):
    record = train.run(TINY.changed({"precision": "auto"}), prepared, tmp_path / "run", say=quiet)
    assert record.about["peak_memory_mib"] > 0 and np.isfinite(record.curve.loss).all()
