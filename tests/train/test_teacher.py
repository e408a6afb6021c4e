"""Knowledge distillation: the student is trained on the views and predictions of the teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeemo.card import Card, read_card
from edgeemo.data import load
from edgeemo.errors import UsageError
from edgeemo.labels import label_set
from edgeemo.metrics import merge_matrix, softmax
from edgeemo.stages import Train
from edgeemo.train import losses, run, run_folder, teacher
from edgeemo.train import network as networks
from edgeemo.train.augment import augment_view, make_augmentation
from edgeemo.train.batches import BatchDataset, Shard, plan_epoch

SIX = label_set("six")


def write_run(folder, *, labels="six", backbone="edge_vgg_slim", temperature=1.0, seed=0):
    """Write a run folder with an untrained network."""
    torch.manual_seed(seed)
    own = label_set(labels)
    architecture = networks.describe(backbone, labels=len(own.labels), head="linear", attention=False, dropout=0.0)
    card = Card(own.labels, own.name, networks.contract_for(backbone), architecture, temperature=temperature)
    run_folder.save(networks.build(architecture).eval(), card, folder)
    return folder


@pytest.fixture(scope="module")
def faces():
    return load("synthetic:60", "train", label_set("six"), contract=networks.contract_for("edge_vgg_slim"))


def student(*runs, views=2):
    return Train(teacher=",".join(map(str, runs)), views=views, augment="edge", seed=5, precision="fp32")


def predict(config, faces):
    contract = networks.contract_for("edge_vgg_slim")
    teachers = teacher.load_teachers(config.teacher, SIX)
    return teacher.predict_views(teachers, config, faces, labels=SIX, contract=contract)


def test_a_view_of_a_face_does_not_depend_on_other_faces(faces):
    """Alone or with others: the same pixels; another view or seed gives others."""
    transform = make_augmentation("edge")
    among = augment_view(faces.pixels, np.array([3, 7, 9]), transform, seed=(0, 1))
    alone = augment_view(faces.pixels, np.array([7]), make_augmentation("edge"), seed=(0, 1))
    assert np.array_equal(among[1], alone[0])
    for other in ((0, 2), (1, 1)):
        assert not np.array_equal(augment_view(faces.pixels, np.array([7]), transform, seed=other)[0], alone[0])


def test_the_student_is_trained_on_the_pixels_that_the_teacher_saw(tmp_path, faces):
    """The teacher's log-probabilities in a batch are those of the pixels in the batch, in every epoch."""
    config = student(write_run(tmp_path / "a"))
    log_probs = predict(config, faces)
    contract = networks.contract_for("edge_vgg_slim")
    batches = BatchDataset(
        faces, losses.make_targets(faces, 6, vote_share=0.0), contract, config, teacher_log_probs=log_probs
    )
    network, _ = run_folder.load(tmp_path / "a")
    for epoch in (0, 1, 2):
        (spec, *_) = plan_epoch(faces.truth, batch_size=16, seed=0, epoch=epoch, sampler="shuffle", shard=Shard())
        pixels, target = batches[spec]
        with torch.inference_mode():
            expected = network(pixels).log_softmax(1)
        torch.testing.assert_close(target[:, 1], expected, atol=1e-4, rtol=0)
        assert torch.equal(target[:, 0].argmax(1), torch.from_numpy(faces.truth[spec.rows]))


def test_the_teacher_sees_faces_without_corruption(tmp_path, faces):
    """With every face corrupted: other pixels, the same predictions, from the same files."""
    config = student(write_run(tmp_path / "a"))
    clean, corrupt = config, replace(config, corrupt_share=1.0)
    assert np.array_equal(predict(clean, faces), predict(corrupt, faces))
    (spec, *_) = plan_epoch(faces.truth, batch_size=16, seed=0, epoch=0, sampler="shuffle", shard=Shard())
    targets, contract = losses.make_targets(faces, 6, vote_share=0.0), networks.contract_for("edge_vgg_slim")
    (pixels, target), (corrupted, same) = (
        BatchDataset(faces, targets, contract, each, teacher_log_probs=predict(each, faces))[spec]
        for each in (clean, corrupt)
    )
    assert torch.equal(target, same)
    assert (pixels != corrupted).flatten(1).any(1).float().mean() > 0.9


def test_logits_are_cached_in_the_run_folder_of_each_member(tmp_path, faces, monkeypatch):
    """A second student needs no prediction; one with a third view predicts that view only."""
    folder = write_run(tmp_path / "a")
    first = predict(student(folder), faces)
    assert len(list(folder.glob("views/*/*.npy"))) == 2
    calls = []
    predict_logits = teacher.predict_logits
    monkeypatch.setattr(teacher, "predict_logits", lambda *args: calls.append(1) or predict_logits(*args))
    assert np.array_equal(predict(student(folder), faces), first)
    assert not calls
    assert np.array_equal(predict(student(folder, views=3), faces)[:2], first)
    assert len(calls) == 1


def test_bf16_predictions_are_cached_separately(tmp_path, faces):
    """They differ slightly from those in fp32; for fp16, which needs a GPU, the teacher runs in fp32."""
    exact = student(write_run(tmp_path / "a"))
    coarse = predict(replace(exact, precision="bf16"), faces)
    assert len(list(tmp_path.glob("a/views/*"))) == 1
    fine = predict(exact, faces)
    assert len(list(tmp_path.glob("a/views/*"))) == 2
    assert 0 < np.abs(coarse - fine).max() < 0.05
    assert np.array_equal(predict(replace(exact, precision="fp16"), faces), fine)


def test_unused_views_are_not_predicted(tmp_path, faces):
    """Two epochs use two of eight views."""
    folder = write_run(tmp_path / "a")
    assert len(predict(replace(student(folder, views=8), epochs=2), faces)) == 2
    assert len(list(folder.glob("views/*/*.npy"))) == 2


def test_other_weights_do_not_use_the_cache(tmp_path, faces):
    """A member that was trained again has its own predictions."""
    before = predict(student(write_run(tmp_path / "a")), faces)
    after = predict(student(write_run(tmp_path / "a", seed=1)), faces)
    assert not np.allclose(before, after)


def test_an_ensemble_predicts_the_mean_of_its_members_at_their_temperatures(tmp_path, faces):
    """The mean of the log-probabilities of a gray network of 48 px and a colour network of 64 px."""
    runs = [write_run(tmp_path / "a", temperature=0.5), write_run(tmp_path / "b", backbone="resnet18", temperature=2.0)]
    alone = [predict(student(folder), faces) for folder in runs]
    assert np.allclose(predict(student(*runs), faces), np.mean(alone, axis=0), atol=1e-5)


def test_probabilities_of_a_teacher_of_eight_labels_are_summed_to_six(tmp_path, faces):
    """Disgust to anger, contempt to neutral, like the votes."""
    folder = write_run(tmp_path / "a", labels="ferplus8")
    six = predict(student(folder), faces)[0]
    network, card = run_folder.load(folder)
    view = augment_view(faces.pixels, np.arange(len(faces)), make_augmentation("edge"), seed=(5, 0))
    eight = teacher.predict_logits(network, replace(faces, pixels=view), card.input)
    assert np.allclose(softmax(six), softmax(eight) @ merge_matrix(SIX.map_labels(card.labels)), atol=1e-4)


def test_a_teacher_that_lacks_a_label_is_refused(tmp_path):
    """A teacher of six labels for a student of eight; the error has the two missing ones."""
    with pytest.raises(UsageError, match="also needs disgust, contempt"):
        teacher.load_teachers([write_run(tmp_path / "a")], label_set("ferplus8"))


def test_distillation_loss_is_zero_for_equal_logits():
    """With a share of 1; other logits have a higher loss."""
    loss = losses.DistillationLoss(nn.CrossEntropyLoss(), share=1.0, temperature=4.0)
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    target = torch.stack([torch.eye(6)[torch.zeros(8, dtype=torch.long)], logits.log_softmax(1)], 1)
    assert loss(logits, target) == pytest.approx(0, abs=1e-6)
    assert loss(logits.flip(1), target) > 0.1


def test_distillation_loss_is_that_of_hinton():
    """T squared times the divergence of the softened distributions, mixed with the label loss."""
    rng = torch.Generator().manual_seed(1)
    logits, teacher_logits = torch.randn(8, 6, generator=rng), torch.randn(8, 6, generator=rng)
    hard = torch.eye(6)[torch.arange(8) % 6]
    loss = losses.DistillationLoss(nn.CrossEntropyLoss(), share=0.7, temperature=3.0)
    soft = nn.functional.kl_div(
        (logits / 3).log_softmax(1), (teacher_logits / 3).log_softmax(1), reduction="batchmean", log_target=True
    )
    expected = 0.3 * nn.functional.cross_entropy(logits, hard) + 0.7 * 9 * soft
    torch.testing.assert_close(loss(logits, torch.stack([hard, teacher_logits.log_softmax(1)], 1)), expected)


def test_the_card_of_a_student_has_its_teachers(tmp_path, tiny):
    """By the hashes of their weights, without paths."""
    teachers = [write_run(tmp_path / "first"), write_run(tmp_path / "second", seed=1)]
    config = replace(tiny, teacher=",".join(map(str, teachers)), views=2)
    card = read_card(run.run(config))
    (line,) = card.history
    assert [member["sha256"] for member in line.measured["teachers"]] == [
        read_card(folder / run_folder.MODEL).sha256 for folder in teachers
    ]
    assert line.config["teacher"] == ["first", "second"]


def test_a_run_is_not_resumed_with_another_teacher(tmp_path, tiny):
    """The same folder with other weights would silently change the targets."""
    config = replace(tiny, teacher=str(write_run(tmp_path / "teacher")), views=2)
    run.run(config).unlink()
    write_run(tmp_path / "teacher", seed=1)
    with pytest.raises(UsageError, match="other settings: teacher"):
        run.run(replace(config, resume=True))
