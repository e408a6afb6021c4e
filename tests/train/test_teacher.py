"""Distillation: the student sees what the teacher saw, and learns what it told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeemo.card import Card, read_card
from edgeemo.data import load
from edgeemo.errors import UsageError
from edgeemo.labels import label_set
from edgeemo.metrics import merging, softmax
from edgeemo.stages import Train
from edgeemo.train import losses, run, teacher, weights
from edgeemo.train import network as networks
from edgeemo.train.augment import transforms, view_of
from edgeemo.train.batches import Batches, Shard, plan

SIX = label_set("six")


def made(folder, *, labels="six", backbone="edge_vgg_slim", temperature=1.0, seed=0):
    """A run folder with a network that knows nothing."""
    torch.manual_seed(seed)
    found = label_set(labels)
    architecture = networks.describe(backbone, labels=len(found.labels), head="linear", attention=False, dropout=0.0)
    card = Card(found.labels, found.name, networks.contract_for(backbone), architecture, temperature=temperature)
    weights.save(networks.build(architecture).eval(), card, folder)
    return folder


@pytest.fixture(scope="module")
def faces():
    return load("synthetic:60", "train", label_set("six"), contract=networks.contract_for("edge_vgg_slim"))


def student(*runs, views=2):
    return Train(teacher=",".join(map(str, runs)), views=views, augment="edge", seed=5, precision="fp32")


def told(config, faces):
    contract = networks.contract_for("edge_vgg_slim")
    return teacher.taught(config, faces, labels=SIX, contract=contract)


def test_a_view_of_a_face_does_not_depend_on_its_company(faces):
    """Alone, in another order or among others: the same pixels; another view and another seed give others."""
    transform = transforms("edge")
    among = view_of(faces.pixels, np.array([3, 7, 9]), transform, seed=(0, 1))
    alone = view_of(faces.pixels, np.array([7]), transforms("edge"), seed=(0, 1))
    assert np.array_equal(among[1], alone[0])
    for other in ((0, 2), (1, 1)):
        assert not np.array_equal(view_of(faces.pixels, np.array([7]), transform, seed=other)[0], alone[0])


def test_the_student_sees_the_pixels_that_the_teacher_answered_for(tmp_path, faces):
    """The teacher's logits of a batch's own pixels are what the batch says it told; in both views, each round."""
    config = student(made(tmp_path / "a"))
    taught = told(config, faces)
    contract = networks.contract_for("edge_vgg_slim")
    batches = Batches(faces, losses.targets(faces, 6, vote_share=0.0), contract, config, taught=taught)
    network, _ = weights.load(tmp_path / "a")
    for epoch in (0, 1, 2):
        (job, *_) = plan(faces.truth, batch_size=16, seed=0, epoch=epoch, sampler="shuffle", shard=Shard())
        pixels, goal = batches[job]
        with torch.inference_mode():
            expected = network(pixels).log_softmax(1)
        torch.testing.assert_close(goal[:, 1], expected, atol=1e-4, rtol=0)
        assert torch.equal(goal[:, 0].argmax(1), torch.from_numpy(faces.truth[job.rows]))


def test_a_student_with_a_poor_camera_is_told_of_the_face_before_it(tmp_path, faces):
    """Every face corrupted: other pixels, the same answers, from the same files."""
    config = student(made(tmp_path / "a"))
    clean, poor = config, replace(config, corrupt_share=1.0)
    assert np.array_equal(told(clean, faces), told(poor, faces))
    (job, *_) = plan(faces.truth, batch_size=16, seed=0, epoch=0, sampler="shuffle", shard=Shard())
    targets, contract = losses.targets(faces, 6, vote_share=0.0), networks.contract_for("edge_vgg_slim")
    (as_told, goal), (corrupted, same) = (
        Batches(faces, targets, contract, each, taught=told(each, faces))[job] for each in (clean, poor)
    )
    assert torch.equal(goal, same)
    assert (as_told != corrupted).flatten(1).any(1).float().mean() > 0.9


def test_answers_are_kept_beside_each_member_and_read_again(tmp_path, faces, monkeypatch):
    """The second student asks nobody; a third view asks for that one alone."""
    run_folder = made(tmp_path / "a")
    first = told(student(run_folder), faces)
    assert len(list(run_folder.glob("views/*/*.npy"))) == 2
    asked = []
    ask = teacher.predict_logits
    monkeypatch.setattr(teacher, "predict_logits", lambda *args: asked.append(1) or ask(*args))
    assert np.array_equal(told(student(run_folder), faces), first)
    assert not asked
    assert np.array_equal(told(student(run_folder, views=3), faces)[:2], first)
    assert len(asked) == 1


def test_a_look_in_bf16_is_another_answer_and_nearly_the_same(tmp_path, faces):
    """Kept apart from that in fp32, so that neither student gets the other's; fp16, of a GPU, looks in fp32."""
    exact = student(made(tmp_path / "a"))
    coarse = told(replace(exact, precision="bf16"), faces)
    assert len(list(tmp_path.glob("a/views/*"))) == 1
    fine = told(exact, faces)
    assert len(list(tmp_path.glob("a/views/*"))) == 2
    assert 0 < np.abs(coarse - fine).max() < 0.05
    assert np.array_equal(told(replace(exact, precision="fp16"), faces), fine)


def test_nobody_is_asked_about_a_view_that_no_epoch_shows(tmp_path, faces):
    """Two epochs show two of eight views."""
    run_folder = made(tmp_path / "a")
    assert len(told(replace(student(run_folder, views=8), epochs=2), faces)) == 2
    assert len(list(run_folder.glob("views/*/*.npy"))) == 2


def test_other_weights_are_asked_anew(tmp_path, faces):
    """A member that was trained again does not answer with what its predecessor said."""
    before = told(student(made(tmp_path / "a")), faces)
    after = told(student(made(tmp_path / "a", seed=1)), faces)
    assert not np.allclose(before, after)


def test_an_ensemble_tells_the_mean_of_its_members_at_their_temperatures(tmp_path, faces):
    """A gray net of 48 px and a colour net of 64 px: log-probabilities, averaged."""
    runs = [made(tmp_path / "a", temperature=0.5), made(tmp_path / "b", backbone="resnet18", temperature=2.0)]
    alone = [told(student(run_folder), faces) for run_folder in runs]
    assert np.allclose(told(student(*runs), faces), np.mean(alone, axis=0), atol=1e-5)


def test_a_teacher_of_eight_labels_adds_them_up_for_six(tmp_path, faces):
    """Disgust to anger, contempt to neutral, as the votes are merged."""
    run_folder = made(tmp_path / "a", labels="ferplus8")
    six = told(student(run_folder), faces)[0]
    network, card = weights.load(run_folder)
    view = view_of(faces.pixels, np.arange(len(faces)), transforms("edge"), seed=(5, 0))
    eight = teacher.predict_logits(network, replace(faces, pixels=view), card.input)
    assert np.allclose(softmax(six), softmax(eight) @ merging(SIX.places(card.labels)), atol=1e-4)


def test_a_teacher_that_lacks_a_label_is_refused(tmp_path):
    """Six labels cannot teach eight; the error names the two that are missing."""
    with pytest.raises(UsageError, match="also needs disgust, contempt"):
        teacher.check(str(made(tmp_path / "a")), label_set("ferplus8"))


def test_a_student_that_repeats_its_teacher_has_no_loss_left():
    """With the whole loss the teacher's, equal logits cost nothing and any others more."""
    loss = losses.Distilled(nn.CrossEntropyLoss(), share=1.0, temperature=4.0)
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    goal = torch.stack([torch.eye(6)[torch.zeros(8, dtype=torch.long)], logits.log_softmax(1)], 1)
    assert loss(logits, goal) == pytest.approx(0, abs=1e-6)
    assert loss(logits.flip(1), goal) > 0.1


def test_the_teachers_part_is_hintons():
    """T squared times the divergence of the softened distributions, mixed with the loss of the labels."""
    rng = torch.Generator().manual_seed(1)
    logits, master = torch.randn(8, 6, generator=rng), torch.randn(8, 6, generator=rng)
    hard = torch.eye(6)[torch.arange(8) % 6]
    loss = losses.Distilled(nn.CrossEntropyLoss(), share=0.7, temperature=3.0)
    soft = nn.functional.kl_div(
        (logits / 3).log_softmax(1), (master / 3).log_softmax(1), reduction="batchmean", log_target=True
    )
    expected = 0.3 * nn.functional.cross_entropy(logits, hard) + 0.7 * 9 * soft
    torch.testing.assert_close(loss(logits, torch.stack([hard, master.log_softmax(1)], 1)), expected)


def test_a_student_is_trained_and_its_card_names_its_teachers(tmp_path, tiny):
    """By their weights' hashes, without folders."""
    masters = [made(tmp_path / "first"), made(tmp_path / "second", seed=1)]
    config = replace(tiny, teacher=",".join(map(str, masters)), views=2)
    card = read_card(run.run(config))
    (line,) = card.history
    assert [member["sha256"] for member in line.measured["teachers"]] == [
        read_card(folder / weights.MODEL).sha256 for folder in masters
    ]
    assert line.config["teacher"] == "first,second"


def test_a_run_is_not_resumed_under_another_teacher(tmp_path, tiny):
    """The same folder name with other weights in it would change the goals in silence."""
    config = replace(tiny, teacher=str(made(tmp_path / "master")), views=2)
    run.run(config)
    made(tmp_path / "master", seed=1)
    with pytest.raises(UsageError, match="other settings: teacher"):
        run.run(replace(config, resume=True))
