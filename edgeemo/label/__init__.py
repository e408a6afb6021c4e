"""The label stage: the faces of photos become labelled crops, one key each, for `edgeemo adapt`.

run       the stage
photos    which photos there are, and the person of each
find      their faces: box, square and the model's probabilities; a crop on demand
queue     the order in which faces are shown
keys      the keys of each label
store     what is written: LABEL/PERSON/NAME.png and labels.csv
session   the labelling itself: the face shown, label, skip and undo, for any number of threads
server    the page, for this machine only: page.html, page.css, page.js, icon.svg
terminal  the same in a terminal
"""
