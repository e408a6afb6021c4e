"""Training, and what else reads faces, on faces from disk: the same to the last bit as from memory."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.compress.quantize.fidelity import select_agreement_faces
from edgeemo.compress.quantize.ranges import iterate_batches
from edgeemo.data import cache, faces
from edgeemo.data.cache import Cache, list_faces
from edgeemo.data.stored import StoredPixels
from edgeemo.errors import DataError
from edgeemo.labels import label_set
from edgeemo.stages import Train
from edgeemo.train import fit, losses, network
from edgeemo.train.augment import augment_view, make_augmentation
from edgeemo.train.batches import BatchDataset, BatchSpec
from edgeemo.train.run import run

SIX = label_set("six")
CONTRACT = InputContract(48)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same faces from disk and in memory."""
    listed = list_faces("synthetic:60", ("train",), SIX, protocol="plurality")
    stored, loaded = (
        listed.load(CONTRACT, cache=Cache(tmp_path_factory.mktemp("cache"), given=given), threads=1)[0]
        for given in (True, False)
    )
    assert isinstance(stored.pixels, StoredPixels)
    assert isinstance(loaded.pixels, np.ndarray)
    return stored, loaded


def predict(found, *, mirrored=False):
    torch.manual_seed(0)
    architecture = network.describe("edge_vgg_nano", labels=6, head="linear", attention=False, dropout=0.0)
    return fit.predict_logits(network.build(architecture), found, CONTRACT, mirrored=mirrored)


def make_batch(found):
    batches = BatchDataset(found, losses.make_targets(found, 6, vote_share=0.5), CONTRACT, Train(corrupt_share=0.5))
    return batches[BatchSpec(3, np.array([50, 2, 2, 31]), 0)][0].numpy()


READERS = {
    "a batch": make_batch,
    "logits": predict,
    "logits of mirror images": lambda found: predict(found, mirrored=True),
    "a view for the teacher": lambda found: augment_view(
        found.pixels, np.array([9, 3]), make_augmentation("edge"), seed=(1, 2)
    ),
    "batches of a quantizer": lambda found: np.concatenate(list(iterate_batches(found, CONTRACT))),
    "some": lambda found: found.take(np.array([5, 5, 1])).pixels,
    "some at even intervals": lambda found: found.take_evenly(7).pixels,
    "all at even intervals": lambda found: found.take_evenly(100).pixels[:],
    "two sets": lambda found: (found + found).pixels,
    "faces that measure agreement": lambda found: select_agreement_faces(found, found).pixels,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_faces_from_disk_are_used_as_those_in_memory(both, reader):
    """Bit for bit."""
    stored, loaded = map(reader, both)
    assert np.array_equal(stored, loaded)


def test_mirrored_logits_are_those_of_mirrored_faces(both):
    """Flip averaging mirrors each batch."""
    _, loaded = both
    mirrored = replace(loaded, pixels=np.ascontiguousarray(loaded.pixels[:, :, ::-1]))
    assert np.array_equal(predict(loaded, mirrored=True), predict(mirrored))


def train(config):
    path = run(config)
    epochs = json.loads((path.parent / "log.json").read_text())["epochs"]
    return path.read_bytes(), [(row["loss"], row["accuracy"]) for row in epochs]


@pytest.mark.parametrize("workers", [0, 2])
def test_losses_and_weights_are_those_from_memory(tiny, tmp_path, workers):
    """In this process, and in workers that were forked."""
    expected = train(replace(tiny, out=tmp_path / "memory"))
    assert train(replace(tiny, out=tmp_path / "disk", cache=tmp_path / "faces", workers=workers)) == expected
    assert list((tmp_path / "faces").glob("*/pixels.npy"))


def test_faces_of_a_large_set_lie_in_the_run_folder_until_the_end(tiny, tmp_path, monkeypatch):
    """Without --cache; a killed run leaves them for --resume, a finished one does not."""
    expected = train(replace(tiny, out=tmp_path / "memory"))
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    folder = tmp_path / "disk" / "decoded-faces"

    def stop(*_):
        assert len(list(folder.glob("*/pixels.npy"))) == 2
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_evaluate_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(replace(tiny, out=tmp_path / "disk", checkpoint_steps=1))
    assert len(list(folder.glob("*/pixels.npy"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(faces.images, "to_pixels", None)  # nothing is decoded again
        assert train(replace(tiny, out=tmp_path / "disk", checkpoint_steps=1, resume=True)) == expected
    assert not folder.exists()


def test_missing_labels_are_refused_before_any_face_is_read(tiny, folder_of_faces, monkeypatch):
    """Reading hundreds of thousands of faces may take an hour."""
    monkeypatch.setattr(faces.images, "to_pixels", None)
    with pytest.raises(DataError, match=r"contempt \(0\)"):
        run(replace(tiny, data=f"folder:{folder_of_faces}", label_set=",".join([*SIX.labels, "contempt"])))
