import csv
import shutil

import av
import numpy as np
import pytest
import torch
from PIL import Image
from strongest import COLOURS, Strongest, about, stripes, thirds

from roadseg.__main__ import main
from roadseg.errors import InputError
from roadseg.predict.files import Output, find_inputs, label_image, predict_files
from roadseg.predict.predictor import Predictor
from roadseg.predict.weights import Weights, pack


def quiet(_):
    pass


@pytest.fixture
def street(tmp_path):
    """A folder with pictures of two sizes, one of them further down."""
    folder = tmp_path / "street"
    (folder / "night").mkdir(parents=True)
    Image.fromarray(stripes(24, 32)).save(folder / "a.png")
    Image.fromarray(stripes(48, 66)).save(folder / "b.jpg", quality=100, subsampling=0)
    Image.fromarray(stripes(24, 32)).save(folder / "night/a.bmp")
    (folder / "notes.txt").write_text("no picture")
    return folder


def make_video(file, frames, rate=5):
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1" if file.suffix == ".mkv" else "libx264", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if file.suffix == ".mkv" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file


def read_video(file, form):
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format=form) for frame in container.decode(video=0)]


def table(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return {row["file"].rsplit("/", 1)[-1]: row for row in csv.DictReader(file)}


def written(folder):
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_a_folder_comes_to_labels_overlays_and_a_table(strongest, street, tmp_path):
    out = tmp_path / "out"
    assert predict_files(strongest, [str(street)], Output(out), quiet)
    assert written(out) == [
        "labels/a.png", "labels/b.png", "labels/night/a.png",
        "overlays/a.jpg", "overlays/b.jpg", "overlays/night/a.jpg", "predictions.csv",
    ]  # fmt: skip
    with Image.open(out / "labels/a.png") as picture:
        assert picture.mode == "P" and (np.asarray(picture) == thirds(24, 32)).all()
        painted = np.asarray(picture.convert("RGB"))
    assert (painted == np.array(COLOURS, np.uint8)[thirds(24, 32)]).all()
    with Image.open(out / "labels/b.png") as picture:
        assert picture.size == (66, 48)
    half = (stripes(24, 32) / 2 + painted / 2)[12, 4]
    assert np.abs(np.asarray(Image.open(out / "overlays/a.jpg"))[12, 4] - half).max() < 12
    row = table(out)["a.png"]
    shares = [float(row[f"{name} %"]) for name in ("red", "green", "blue")]
    expected = 100 * np.bincount(thirds(24, 32).ravel()) / (24 * 32)
    assert shares == pytest.approx(expected, abs=1e-3) and row["pictures"] == "1"
    assert float(row["confidence"]) == pytest.approx(1, abs=1e-3) and float(row["seconds"]) > 0


def test_the_same_call_again_predicts_what_is_new_or_changed(strongest, street, tmp_path, monkeypatch):
    out, seen = tmp_path / "out", []
    predict_files(strongest, [str(street)], Output(out), quiet)
    predict = strongest.predict
    monkeypatch.setattr(strongest, "predict", lambda image: seen.append(image.size) or predict(image))
    predict_files(strongest, [str(street)], Output(out), quiet)
    assert not seen
    (out / "labels/a.png").unlink()
    Image.fromarray(stripes(30, 40)).save(street / "night/a.bmp")
    Image.fromarray(stripes(24, 36)).save(street / "c.png")
    predict_files(strongest, [str(street)], Output(out), quiet)
    assert sorted(seen) == [(32, 24), (36, 24), (40, 30)]
    assert len(table(out)) == 4 and len(written(out)) == 9  # a.png and a.bmp end alike


def test_a_stop_leaves_whole_files_and_the_next_call_goes_on(strongest, street, tmp_path, monkeypatch):
    out, predict = tmp_path / "out", strongest.predict

    def stop_at_large(image):
        if image.size == (66, 48):
            raise KeyboardInterrupt
        return predict(image)

    monkeypatch.setattr(strongest, "predict", stop_at_large)
    with pytest.raises(KeyboardInterrupt):
        predict_files(strongest, [str(street)], Output(out), quiet)
    for file in out.rglob("*.png"):
        Image.open(file).load()
    assert not [name for name in written(out) if "partial" in name]
    with open(out / "predictions.csv", "a") as file:
        file.write("half of a line, that a kill")
    monkeypatch.setattr(strongest, "predict", predict)
    assert predict_files(strongest, [str(street)], Output(out), quiet)
    assert len(written(out)) == 7 and "half" not in (out / "predictions.csv").read_text()


def test_a_broken_file_is_named_and_the_others_go_on(strongest, street, tmp_path):
    (street / "broken.png").write_bytes(b"no picture")
    (street / "broken.mp4").write_bytes(b"no video")
    said = []
    assert not predict_files(strongest, [str(street)], Output(tmp_path / "out"), said.append)
    assert [line for line in said if "broken.png" in line] and [x for x in said if "broken.mp4" in x]
    assert "3 of 5" in said[-1] and len(written(tmp_path / "out")) == 7


def test_other_weights_or_settings_do_not_mix(strongest, street, tmp_path):
    predict_files(strongest, [str(street)], Output(tmp_path / "out"), quiet)
    other = Predictor(Weights(about(), Strongest(), "another"), torch.device("cpu"))
    for predictor, opacity in ((other, 0.5), (strongest, 0.7)):
        with pytest.raises(InputError, match="other weights or settings"):
            predict_files(predictor, [str(street)], Output(tmp_path / "out", opacity), quiet)


def test_no_output_takes_the_place_of_an_input(strongest, street):
    (street / "labels").mkdir()
    shutil.copy(street / "a.png", street / "labels/a.png")
    with pytest.raises(InputError, match="would be overwritten"):
        predict_files(strongest, [str(street / "labels")], Output(street), quiet)
    with pytest.raises(InputError, match="written to one file"):
        find_inputs([str(street / "a.png"), str(street / "night/a.bmp")])


def test_patterns_and_single_files_are_found_once(street):
    names = [each.name for each in find_inputs([f"{street}/*.*g", str(street / "a.png")])]
    assert names == ["a", "b"]
    for wrong in ("gone.png", f"{street}/*.tiff"):
        with pytest.raises(InputError, match="no such file"):
            find_inputs([wrong])
    (street / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        find_inputs([str(street / "empty")])


def test_original_values_are_those_of_the_label_files():
    labels = np.array([[0, 1, 2]], np.uint8)
    picture = label_image(labels, about(), original=True)
    assert np.asarray(picture).tolist() == [[7, 8, 9]]
    assert picture.convert("RGB").getpixel((1, 0)) == tuple(COLOURS[1])
    deep = label_image(labels, about(values=[1, 300, 65000]), original=True)
    assert np.asarray(deep).tolist() == [[1, 300, 65000]]
    rgb = label_image(labels, about(values=[[1, 2, 3], [4, 5, 6], [7, 8, 9]]), original=True)
    assert np.asarray(rgb).tolist() == [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]


def test_labels_without_values_of_their_own_are_refused(street, tmp_path):
    predictor = Predictor(Weights(about(values=None), Strongest(), ""), torch.device("cpu"))
    with pytest.raises(InputError, match="--values original"):
        predict_files(predictor, [str(street)], Output(tmp_path / "out", original=True), quiet)
    assert not (tmp_path / "out").exists()


def test_a_video_comes_to_videos_frame_by_frame(strongest, tmp_path):
    frames = [np.roll(stripes(24, 32), 3 * n, 1) for n in range(7)]
    file = make_video(tmp_path / "drive.mkv", frames)
    assert predict_files(strongest, [str(file)], Output(tmp_path / "out"), quiet)
    labels = read_video(tmp_path / "out/labels/drive.mkv", "gray")
    expected = [frame.argmax(2) for frame in read_video(file, "rgb24")]
    assert len(labels) == 7 and all((a == b).all() for a, b in zip(labels, expected, strict=True))
    assert len(read_video(tmp_path / "out/overlays/drive.mp4", "rgb24")) == 7
    with av.open(str(tmp_path / "out/overlays/drive.mp4")) as container:
        assert container.streams.video[0].average_rate == 5
    assert table(tmp_path / "out")["drive.mkv"]["pictures"] == "7"


def test_a_video_of_odd_size_and_one_without_pictures(strongest, tmp_path):
    make_video(tmp_path / "odd.mkv", [stripes(25, 33)] * 2)
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    said, inputs = [], [str(tmp_path / name) for name in ("odd.mkv", "sound.mkv")]
    assert not predict_files(strongest, inputs, Output(tmp_path / "out"), said.append)
    assert read_video(tmp_path / "out/overlays/odd.mp4", "rgb24")[0].shape == (24, 32, 3)
    assert read_video(tmp_path / "out/labels/odd.mkv", "gray")[0].shape == (25, 33)
    assert any("sound.mkv" in line and "no pictures" in line for line in said)
    assert not [name for name in written(tmp_path / "out") if "sound" in name]


def test_the_command(tiny, street, tmp_path, capsys):
    pack(tiny, tmp_path / "tiny.pt")
    out, weights = str(tmp_path / "out"), str(tmp_path / "tiny.pt")
    call = ["predict", str(street), "--weights", weights, "--out", out, "--overlay", "0"]
    assert main(call) == 0
    assert written(tmp_path / "out") == [
        "labels/a.png", "labels/b.png", "labels/night/a.png", "predictions.csv",
    ]  # fmt: skip
    (street / "broken.png").write_bytes(b"")
    assert main(call) == 1
    for wrong in (["--overlay", "2"], ["--height", "-1"], ["--weights", "nobody"], ["--weights", "no.pt"]):
        assert main([*call, *wrong]) == 2
        assert wrong[1] in capsys.readouterr().err
