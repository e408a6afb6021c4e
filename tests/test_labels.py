"""Label sets."""

import pytest

from edgeemo.errors import UsageError
from edgeemo.labels import FERPLUS8, LABEL_SETS, emotion, label_set


def test_six_keeps_every_ferplus_vote():
    """Each of the eight FER+ labels has a place among the six."""
    six = LABEL_SETS["six"]
    assert [six.labels[six.index(name)] for name in FERPLUS8] == [
        *("neutral", "happiness", "surprise", "sadness", "anger"),
        *("anger", "fear", "neutral"),
    ]


def test_folder_names_in_the_wild_are_understood():
    """FER2013 exports write happy, sad and angry."""
    assert label_set("six").index("happy") == label_set("six").index("happiness")


def test_a_model_of_eight_labels_can_answer_in_six():
    """Every label of the model has a place; a model of six cannot answer in eight, and the missing two are named."""
    six, eight = label_set("six"), label_set("ferplus8")
    assert six.places(eight.labels) == (0, 1, 2, 3, 4, 4, 5, 0)
    with pytest.raises(UsageError, match="also needs disgust, contempt"):
        eight.places(six.labels)
    with pytest.raises(UsageError, match="'neutral'"):
        label_set("happiness,sadness").places(six.labels)


def test_own_labels_are_taken_as_written():
    """A set of one's own is not renamed, even where a name is an alias."""
    assert label_set("happy,sad").index("sad") == 1


def test_wrong_label_is_refused_with_the_known_ones():
    """The message lists what would have been right."""
    with pytest.raises(UsageError, match=r"'joyful'.*neutral, happiness"):
        label_set("six").index("joyful")


@pytest.mark.parametrize("name", ["seven", "", "a,,b", "a,a"])
def test_unknown_or_faulty_label_set_is_refused(name):
    """Unknown, empty and repeated names are mistakes."""
    with pytest.raises(UsageError, match="label set"):
        label_set(name)


def test_only_emotions_can_be_drawn():
    """A label that names no FER+ emotion has no drawing."""
    assert emotion("happy") == "happiness"
    with pytest.raises(UsageError, match="hunger"):
        emotion("hunger")
