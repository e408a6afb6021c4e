"""Files of labelled boxes: what is read from each format, and what is refused, with file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NoReturn

import pytest

from edgeemo.data.boxes import read_boxes
from edgeemo.data.boxes.labelled import Collector, LabelledBox, check_inside
from edgeemo.errors import DataError, UsageError

WIDER = """\
0--Parade/a.jpg
2
449 330 122 149 0 0 0 0 0 0
10 20 30 40 2 0 0 1 0 0
1--Handshaking/empty.jpg
0
0 0 0 0 0 0 0 0 0 0
b.jpg
1
5 6 7 8 0 0 0 0 0 0
""".replace(" 0\n", " 0 \n")  # the original lines end with a space
COCO = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 640, "height": 480},
        {"id": 8, "file_name": "sub/empty.jpg", "width": 10, "height": 10},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "bbox": [1.5, 2, 3, 4], "category_id": 1},
        {"id": 2, "image_id": 7, "bbox": [5, 6, 70, 80], "category_id": 1, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "face"}],
}
CSV = "image,x,y,width,height\na.jpg,1.5,2,3,4\nempty.jpg,,,,\nb.jpg,5,6,7,8\na.jpg,9,9,9,9\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def summarise(path: Path) -> list[tuple[str, list[tuple[tuple[float, ...], bool]]]]:
    return [(image.name, [(one.box, one.ignored) for one in image.boxes]) for image in read_boxes(path)]


def test_wider_face_is_read_with_invalid_and_absent_faces(write) -> None:
    """The eighth number marks faces that do not count; a line of zeros follows the number 0."""
    assert summarise(write("wider_face_val_bbx_gt.txt", WIDER)) == [
        ("0--Parade/a.jpg", [((449, 330, 122, 149), False), ((10, 20, 30, 40), True)]),
        ("1--Handshaking/empty.jpg", []),
        ("b.jpg", [((5, 6, 7, 8), False)]),
    ]


def test_wider_face_is_read_without_zeros_and_attributes_and_with_windows_line_ends(write) -> None:
    """As other tools write it."""
    text = "empty.jpg\r\n0\r\na.jpg\r\n1\r\n1 2 3 4\r\n"
    assert summarise(write("boxes.txt", text)) == [("empty.jpg", []), ("a.jpg", [((1, 2, 3, 4), False)])]


def test_a_wider_face_without_a_size_is_ignored(write) -> None:
    """It cannot be found; several of them are no duplicates."""
    text = "a.jpg\n3\n0 0 0 0 0 0 0 0 0 0\n0 0 0 0 0 0 0 0 0 0\n1 2 3 4 0 0 0 0 0 0\n"
    (image,) = read_boxes(write("boxes.txt", text))
    assert [one.ignored for one in image.boxes] == [True, True, False]


def test_coco_is_read_with_crowds_ignored(write) -> None:
    """By the ids of the images, with the size that they must have."""
    path = write("boxes.json", COCO)
    assert summarise(path) == [
        ("a.jpg", [((1.5, 2, 3, 4), False), ((5, 6, 70, 80), True)]),
        ("sub/empty.jpg", []),
    ]
    assert [image.size for image in read_boxes(path)] == [(640, 480), (10, 10)]


def test_of_several_categories_the_face_is_read(write) -> None:
    """And a file that names none is refused, with those that it has."""
    several = {**COCO, "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "Face"}]}
    several["annotations"] = [{**COCO["annotations"][0], "category_id": 2}, COCO["annotations"][1]]
    assert summarise(write("boxes.json", several))[0] == ("a.jpg", [((1.5, 2, 3, 4), False)])
    with pytest.raises(DataError, match=r"expected one category 'face', found 'person, dog'"):
        read_boxes(write("two.json", {**COCO, "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]}))


def test_a_single_category_may_have_any_name_and_need_not_be_repeated(write) -> None:
    """As in data sets of faces whose category is called head; annotations without category_id are of it."""
    single = {**COCO, "categories": [{"id": 1, "name": "head"}]}
    assert summarise(write("boxes.json", single)) == summarise(write("face.json", COCO))
    single["annotations"] = [{"image_id": 7, "bbox": [1, 2, 3, 4]}]
    assert summarise(write("boxes.json", single))[0] == ("a.jpg", [((1, 2, 3, 4), False)])


def test_the_boxes_of_a_crowded_image_are_not_compared_one_by_one() -> None:
    """A duplicate is looked up: comparing every box with all before takes seconds for 20,000 of one image."""

    class Boxes(list[LabelledBox]):
        def __iter__(self) -> NoReturn:
            raise AssertionError("the boxes were searched")

    collector = Collector()
    image = collector.add_image("a.jpg", "line 1")
    image.boxes = Boxes()
    for number in range(3):
        collector.add_box(image, [number % 2, 1, 2, 3], f"line {number}")
    assert len(image.boxes) == 2


def test_csv_is_read_in_any_order_of_columns_and_rows(write) -> None:
    """An image without faces is a row with an empty box; `ignored` marks faces that do not count."""
    assert summarise(write("boxes.csv", CSV)) == [
        ("a.jpg", [((1.5, 2, 3, 4), False), ((9, 9, 9, 9), False)]),
        ("empty.jpg", []),
        ("b.jpg", [((5, 6, 7, 8), False)]),
    ]
    other = "\ufeffIgnored, Height ,width,y,x,image\n1,4,3,2,1,a.jpg\n,8,7,6,5,a.jpg\n\n"
    assert summarise(write("other.csv", other)) == [("a.jpg", [((1, 2, 3, 4), True), ((5, 6, 7, 8), False)])]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.txt",
            "a.jpg\n4\n1 2 3 4\n9 9 9 9\n1 2 3 4\n1 2 3 4\nb.jpg\n1\n1 2 3 4\n",
            r"left out 2 boxes repeated in an image, first at .*a\.txt, line 5: the same as at .*a\.txt, line 3$",
        ),
        (
            "a.json",
            {**COCO, "annotations": [COCO["annotations"][0]] * 2},
            r"left out 1 box repeated in an image, first at .*annotations\[1\]: the same as at .*annotations\[0\]$",
        ),
        (
            "a.csv",
            "image,x,y,width,height,ignored\na.jpg,1,2,3,4,0\na.jpg,1,2,3,4,1\n",
            "left out 1 box repeated in an image, first at .*line 3: the same as at .*line 2$",
        ),
    ],
)
def test_a_box_that_an_image_has_twice_counts_once(
    write, name: str, content: object, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Data sets of others cannot be edited; the log says how many were left out, and where the first is."""
    boxes = [[one.box for one in image.boxes] for image in read_boxes(write(name, content))]
    assert all(len(set(found)) == len(found) for found in boxes)
    assert boxes[0][0] in ((1, 2, 3, 4), (1.5, 2, 3, 4))
    (message,) = caplog.messages
    assert re.search(says, message)


def test_the_first_of_two_same_boxes_says_whether_it_counts(write) -> None:
    """The flag of the second has no effect."""
    rows = "image,x,y,width,height,ignored\na.jpg,1,2,3,4,0\na.jpg,1,2,3,4,1\n"
    assert summarise(write("boxes.csv", rows)) == [("a.jpg", [((1, 2, 3, 4), False)])]


REFUSED = [
    ("a.txt", "a.jpg\ntwo\n", "a.txt, line 2: expected the number of faces, found 'two'"),
    ("a.txt", "a.jpg\n-1\n", "a.txt, line 2: expected the number of faces, found '-1'"),
    ("a.txt", "a.jpg\n2\n1 2 3 4\nb.jpg\n0\n", "a.txt, line 4: expected a box, 4 or 10 numbers, found 'b.jpg'"),
    ("a.txt", "a.jpg\n1\n1 2 3 4\n5 6 7 8\n", "a.txt, line 4: expected the name of an image, found '5 6 7 8'; is the"),
    ("a.txt", "a.jpg\n1\n1 2 3 4\n\nb.jpg\n0\n", "a.txt, line 4: expected the name of an image, found ''"),
    ("a.txt", "a.jpg\n1\n", "a.txt ends after line 2, in the middle of an image"),
    ("a.txt", "a.jpg\n", "a.txt ends after line 1"),
    ("a.txt", "a.jpg\n1\n1 2 3 x\n", "a.txt, line 3: expected numbers, found '1 2 3 x'"),
    (
        "a.txt",
        "a.jpg\n1\n1 2 -3 4\n",
        "a.txt, line 3: expected a box with a width and height above 0 px, found 1 2 -3 4",
    ),
    ("a.txt", "a.jpg\n1\n1 2 nan 4\n", "a.txt, line 3: expected numbers"),
    ("a.txt", "a.jpg\n0\na.jpg\n0\n", "a.txt, line 3: 'a.jpg' is there twice, first at .*a.txt, line 1"),
    ("a.txt", "../a.jpg\n0\n", "a.txt, line 1: expected the name of an image inside the folder of images"),
    ("a.txt", "/a.jpg\n0\n", "a.txt, line 1: expected the name of an image inside the folder"),
    ("a.txt", "", "a.txt names no image"),
    ("a.json", "{", "a.json is not COCO's JSON"),
    ("a.json", "[]", "a.json: expected an object with images and annotations"),
    ("a.json", {"images": []}, r"a.json: expected a list of annotations, as in COCO's files, found 'None'"),
    ("a.json", {"images": [3], "annotations": []}, r"a.json, images\[0\]: expected an object with id, found '3'"),
    ("a.json", {"images": [{"id": 1}], "annotations": []}, r"a.json, images\[0\]: expected an object with file_name"),
    ("a.json", {**COCO, "images": COCO["images"] * 2}, r"a.json, images\[2\]: the id '7' is there twice"),
    (
        "a.json",
        {**COCO, "annotations": [{"image_id": 9, "bbox": [1, 2, 3, 4]}]},
        r"a.json, annotations\[0\]: no image has the id '9'",
    ),
    (
        "a.json",
        {**COCO, "annotations": [{"image_id": 7, "bbox": [1, 2, 3]}]},
        r"a.json, annotations\[0\]: expected bbox as \[x, y, width, height\], found '\[1, 2, 3\]'",
    ),
    (
        "a.json",
        {**COCO, "annotations": [{"image_id": 7, "bbox": [1, 2, 0, 4]}]},
        r"a.json, annotations\[0\]: expected a box with a width and height above 0 px, found 1 2 0 4",
    ),
    *(
        ("a.json", {**COCO, "annotations": [{"image_id": 7, "bbox": [1, 2, value, 4]}]}, "expected bbox as .*found")
        for value in (10**400, -(10**400), float("nan"), float("inf"))
    ),
    *(
        (
            "a.json",
            {**COCO, "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": value}]},
            r"a.json, annotations\[0\]: expected iscrowd as 0 or 1, found ",
        )
        for value in ("0", [0], float("nan"), None, 2)
    ),
    (
        "a.json",
        {**COCO, "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4], "category_id": 2}]},
        r"a.json, annotations\[0\]: no category has the id '2'",
    ),
    (
        "a.json",
        {**COCO, "categories": [{"id": 1, "name": "face"}, {"id": 1, "name": "person"}]},
        r"a.json, categories\[1\]: the id '1' is there twice",
    ),
    (
        "a.json",
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "image_id": 1}]}',
        "a.json is not COCO's JSON: it has the key 'image_id' twice in one object",
    ),
    ("a.txt", f"a.jpg\n{'9' * 5000}\n", "a.txt, line 2: expected the number of faces, found '9999"),
    (
        "a.csv",
        "image,x,y,width,height,ignored,ignored\na.jpg,1,2,3,4,1,0\n",
        "a.csv, line 1: expected each column once; has several of ignored",
    ),
    ("a.csv", "image,x,x,y,width,height\na.jpg,1,1,2,3,4\n", "a.csv, line 1: .*has several of x"),
    ("a.csv", "image,x,y,width,height,ignored\na.jpg,,,,,7\n", "line 2: expected ignored as 0 or 1, found '7'"),
    ("a.csv", "image,x,y,width\na.jpg,1,2,3\n", "a.csv, line 1: expected the columns .* lacks height"),
    (
        "a.csv",
        "image,x,y,width,height\na.jpg,1,2,3\n",
        "a.csv, line 2: expected 5 cells, as in the first line, found 4",
    ),
    ("a.csv", "image,x,y,width,height\na.jpg,1,,3,4\n", "a.csv, line 2: expected numbers"),
    ("a.csv", "image,x,y,width,height\n,1,2,3,4\n", "a.csv, line 2: expected the name of an image"),
    (
        "a.csv",
        "image,x,y,width,height\na.jpg,1,2,3,4\na.jpg,,,,\n",
        "line 3: 'a.jpg' is there twice, first at .*line 2",
    ),
    ("a.csv", "image,x,y,width,height\na.jpg,,,,\na.jpg,1,2,3,4\n", "line 3: a face in 'a.jpg', which has none at .*2"),
    ("a.csv", "image,x,y,width,height,ignored\na.jpg,1,2,3,4,no\n", "line 2: expected ignored as 0 or 1, found 'no'"),
    ("a.csv", 'image,x,y,width,height\n"a.jpg,1,2,3,4\n', "line 2: not CSV"),
    ("a.csv", "", "a.csv, line 1: expected the columns image"),
    ("a.csv", "image,x,y,width,height\n", "a.csv names no image"),
]


@pytest.mark.parametrize(("name", "content", "says"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_what_is_not_of_the_format_is_refused_with_file_and_line(
    name: str, content: object, says: str, tmp_path: Path
) -> None:
    """In one line."""
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        read_boxes(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Another ending with the known ones, a missing file, bytes that are no text, and a folder."""
    with pytest.raises(UsageError, match=r"unknown format of labelled boxes '.xml'; known: .txt, .json, .csv"):
        read_boxes(tmp_path / "boxes.xml")
    with pytest.raises(DataError, match=r"gone.csv cannot be read"):
        read_boxes(tmp_path / "gone.csv")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected text in UTF-8"):
        read_boxes(tmp_path / "bytes.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv cannot be read"):
        read_boxes(tmp_path / "folder.csv")


def test_boxes_must_lie_in_an_image_of_the_stated_size(write) -> None:
    """They may extend over its edges; boxes that do not count may lie anywhere."""
    (image,) = read_boxes(write("a.csv", "image,x,y,width,height,ignored\na.jpg,-5,90,10,20,\na.jpg,500,0,10,10,1\n"))
    check_inside(image, 100, 100)
    with pytest.raises(DataError, match=r"a.csv, line 2: the box -5 90 10 20 lies outside of 'a.jpg', 100x90 px"):
        check_inside(image, 100, 90)
    image, _ = read_boxes(write("a.json", COCO))
    check_inside(image, 640, 480)
    with pytest.raises(DataError, match=r"images\[0\]: 'a.jpg' is 480x640 px when upright, expected 640x480"):
        check_inside(image, 480, 640)
