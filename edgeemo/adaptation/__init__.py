"""Fit a model to the place where it runs, from the logits of a few labelled faces; NumPy alone, so also on a device.

    apply     adapted logits from logits
    fit       a bias, a diagonal or a matrix, shrunk towards no change
    folds     which faces are held out together: those of a person
    choose    how much of a change the faces support, by cross-validation, and whether they show a gain
    explain   what that means, in sentences

What moves with the place is the mix of emotions, how strongly people express them, and the camera; a change of the
logits can make up for much of that. It is the multiclass form of Platt scaling (C. Guo et al., "On Calibration of
Modern Neural Networks", 2017, arXiv:1706.04599: vector and matrix scaling), shrunk towards the identity because the
faces are few (M. Kull et al., "Beyond temperature scaling", 2019, arXiv:1910.12656: off-diagonal and intercept
regularisation).
"""

from edgeemo.adaptation.apply import adapt_logits
from edgeemo.adaptation.choose import Fitted, fit_adaptation
from edgeemo.adaptation.explain import count_more_faces, explain_refusal, list_left_alone, list_warnings
from edgeemo.adaptation.fit import Change

__all__ = [
    "Change",
    "Fitted",
    "adapt_logits",
    "count_more_faces",
    "explain_refusal",
    "fit_adaptation",
    "list_left_alone",
    "list_warnings",
]
