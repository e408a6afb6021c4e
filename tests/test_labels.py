"""Label sets."""

import pytest

from edgeemo.errors import UsageError
from edgeemo.labels import FERPLUS8, LABEL_SETS, emotion, label_set


def test_six_covers_all_ferplus_labels():
    """Each of the eight FER+ labels is one of the six or merged into one."""
    six = LABEL_SETS["six"]
    assert [six.labels[six.index(name)] for name in FERPLUS8] == [
        *("neutral", "happiness", "surprise", "sadness", "anger"),
        *("anger", "fear", "neutral"),
    ]


def test_common_folder_names_are_aliases():
    """Exports of FER2013 use happy, sad and angry."""
    assert label_set("six").index("happy") == label_set("six").index("happiness")


def test_a_model_of_eight_labels_can_report_six():
    """A model of six labels cannot report eight; the error has the two missing ones."""
    six, eight = label_set("six"), label_set("ferplus8")
    assert six.map_labels(eight.labels) == (0, 1, 2, 3, 4, 4, 5, 0)
    with pytest.raises(UsageError, match="also needs disgust, contempt"):
        eight.map_labels(six.labels)
    lacking = "the model predicts neutral, surprise, anger, fear, which the label set happiness,sadness lacks"
    with pytest.raises(UsageError, match=lacking):
        label_set("happiness,sadness").map_labels(six.labels)


def test_own_labels_are_not_changed():
    """They are not renamed, even if one is an alias."""
    assert label_set("happy,sad").index("sad") == 1


def test_an_unknown_label_is_refused_with_the_known_ones():
    """The error lists the labels of the set."""
    with pytest.raises(UsageError, match=r"'bored'.*neutral, happiness"):
        label_set("six").index("bored")


@pytest.mark.parametrize("name", ["nine", "", "a,,b", "a,a"])
def test_an_unknown_or_invalid_label_set_is_refused(name):
    """An unknown name, or empty or repeated labels."""
    with pytest.raises(UsageError, match="label set"):
        label_set(name)


def test_labels_are_resolved_to_ferplus_emotions():
    """A label that is not an emotion or alias is refused."""
    assert emotion("happy") == "happiness"
    with pytest.raises(UsageError, match="hunger"):
        emotion("hunger")
