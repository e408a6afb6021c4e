"""The numbers that data sets use for labels, in their tables and as names of folders."""

from __future__ import annotations

FER2013 = {"0": "anger", "1": "disgust", "2": "fear", "3": "happiness", "4": "sadness", "5": "surprise", "6": "neutral"}
RAFDB = {"1": "surprise", "2": "fear", "3": "disgust", "4": "happiness", "5": "sadness", "6": "anger", "7": "neutral"}
AFFECTNET = {
    "0": "neutral",
    "1": "happiness",
    "2": "sadness",
    "3": "surprise",
    "4": "fear",
    "5": "disgust",
    "6": "anger",
    "7": "contempt",
}
BY_KIND = {"fer2013": FER2013, "rafdb": RAFDB, "affectnet": AFFECTNET}
