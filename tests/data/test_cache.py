"""Faces on disk: the same as in memory, made once, made again when anything changed, and never half."""

import errno
import multiprocessing
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.data import cache, faces, stored
from edgeemo.data.cache import Cache, list_faces
from edgeemo.errors import DataError, IntegrityError, MachineError, UsageError
from edgeemo.labels import label_set

SIX = label_set("six")
GRAY = InputContract(32)
RGB = InputContract(32, "rgb", (0.5,) * 3, (0.5,) * 3)
GB = 10**9


@pytest.fixture
def read(folder_of_faces, tmp_path):
    """Return a function that loads train and valid faces from disk."""

    def load(contract=GRAY, labels=SIX, *, given=True, threads=1):
        listed = list_faces(f"folder:{folder_of_faces}", ("train", "valid"), labels, protocol="plurality")
        return listed.load(contract, cache=Cache(tmp_path / "cache", given), threads=threads)

    return load


@pytest.fixture
def made(read, tmp_path):
    """The folder of the train faces on disk."""
    read()
    return next((tmp_path / "cache").glob("train-*[0-9a-f]"))


@pytest.fixture
def no_reading(monkeypatch):
    """Reading any picture fails."""

    def fail(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr(images, "to_pixels", fail)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("contract", [GRAY, RGB], ids=["gray", "rgb"])
def test_faces_on_disk_are_those_in_memory(read, folder_of_faces, contract, threads):
    """Pixels, votes, labels, ids and hashes, whatever the number of threads."""
    for split, found in zip(("train", "valid"), read(contract, threads=threads), strict=True):
        expected = faces.load(f"folder:{folder_of_faces}", split, SIX, contract=contract)
        assert isinstance(found.pixels, stored.StoredPixels)
        assert np.array_equal(found.pixels[:], expected.pixels)
        assert np.array_equal(found.votes, expected.votes)
        assert np.array_equal(found.truth, expected.truth)
        assert found.ids == expected.ids
        assert found.content_sha256 == expected.content_sha256


@pytest.mark.parametrize(
    "index",
    [
        7,
        -1,
        np.int64(3),
        slice(5, 9),
        slice(None, None, -2),
        np.array([4, 4, 0]),
        np.array([], int),
        np.arange(48) > 40,
    ],
    ids=repr,
)
def test_an_index_selects_as_in_an_array(read, index):
    """One face, a range, rows in any order, or a mask."""
    pixels = read()[0].pixels
    expected = pixels[:][index]
    assert pixels[index].shape == expected.shape
    assert np.array_equal(pixels[index], expected)
    assert np.array_equal(pickle.loads(pickle.dumps(pixels))[index], expected)  # noqa: S301  our own


def test_a_face_that_is_not_there_is_an_index_error(read):
    """As in an array; numpy would otherwise iterate for ever."""
    with pytest.raises(IndexError):
        read()[0].pixels[48]


def test_other_votes_change_the_hash_of_the_content(read, folder_of_faces):
    """The stored hash holds for the stored votes alone; others are hashed with the pixels, as in memory."""
    on_disk, in_memory = read()[0], faces.load(f"folder:{folder_of_faces}", "train", SIX, contract=GRAY)
    flipped = [faces.Faces(one.pixels, one.votes[::-1].copy(), one.truth, one.ids) for one in (on_disk, in_memory)]
    assert flipped[0].content_sha256 == flipped[1].content_sha256 != on_disk.content_sha256


def test_faces_on_disk_are_never_read_as_a_whole_by_accident(read):
    """It would take the memory of all faces, for a function that expects an array."""
    with pytest.raises(TypeError, match="on disk"):
        np.asarray(read()[0].pixels)


@pytest.mark.usefixtures("made", "no_reading")
def test_a_second_start_reads_no_picture(read):
    """Files are compared by size and times alone."""
    assert len(read()[0]) == 48


def test_large_sets_go_to_disk_and_small_ones_to_memory(read, monkeypatch, caplog, tmp_path):
    """More than half of the available memory; sizes and place are stated before anything is read."""
    size = 60 * 32 * 32
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size)
    assert all(isinstance(found.pixels, np.ndarray) for found in read(given=False))
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size - 1)
    with caplog.at_level("INFO"):
        assert all(isinstance(found.pixels, stored.StoredPixels) for found in read(given=False))
    expected = (
        f"48 train and 12 valid faces at 32 px gray need 61 kB; 123 kB of memory are available: they are read from "
        f"{tmp_path / 'cache'}, removed when this command has finished; keep it with --cache"
    )
    assert expected in caplog.messages


def test_every_process_of_torchrun_on_this_machine_counts(read, monkeypatch):
    """Each would hold all faces."""
    monkeypatch.setattr(cache, "available_memory", lambda: 4 * 60 * 32 * 32)
    assert isinstance(read(given=False)[0].pixels, np.ndarray)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert isinstance(read(given=False)[0].pixels, stored.StoredPixels)


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("given", [True, False])
def test_too_little_disk_is_refused_before_anything_is_read(read, monkeypatch, tmp_path, given):
    """With all sizes, and the options that can help; nothing is written."""
    monkeypatch.setattr(cache, "available_memory", lambda: 100_000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(GB, GB, 60_000))
    expected = (
        f"48 train and 12 valid faces at 32 px gray need 61 kB; 100 kB of memory are available, and 60 kB of disk for "
        f"{tmp_path / 'cache'}: choose a folder on a larger disk with --cache FOLDER, or a smaller --size"
    )
    with pytest.raises(MachineError, match=f"^{re.escape(expected)}$"):
        read(given=given)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("made")
def test_faces_that_are_there_already_need_no_disk(read, monkeypatch):
    """A second start works on a disk that the first one has filled."""
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(GB, GB, 0))
    assert len(read()[0]) == 48


@pytest.mark.usefixtures("no_reading")
def test_faces_that_do_not_fit_in_memory_are_refused_before_they_are_read(folder_of_faces, monkeypatch):
    """Where they are not kept on disk, as in bench."""
    monkeypatch.setattr(faces, "available_memory", lambda: 40_000)
    with pytest.raises(MachineError, match=r"^48 train faces at 32 px gray need 49 kB of memory; 40 kB are available"):
        faces.load(f"folder:{folder_of_faces}", "train", SIX, contract=GRAY)


def cut(path, count):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - count)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a pixel": lambda made: flip(made / "pixels.npy", 3000),
    "the last pixel": lambda made: flip(made / "pixels.npy", -1),
    "the header": lambda made: flip(made / "pixels.npy", 60),
    "cut short": lambda made: cut(made / "pixels.npy", 1),
    "too long": lambda made: (made / "pixels.npy").open("ab").write(b"x"),
    "no pixels": lambda made: (made / "pixels.npy").unlink(),
    "a checksum": lambda made: flip(made / "checksums.npy", -1),
    "fewer checksums": lambda made: cut(made / "checksums.npy", 4),
    "no checksums": lambda made: (made / "checksums.npy").unlink(),
    "no manifest": lambda made: (made / "manifest.json").unlink(),
    "not JSON": lambda made: (made / "manifest.json").write_text("{"),
    "other JSON": lambda made: (made / "manifest.json").write_text('{"shape": [1, 2, 3]}'),
    "a list": lambda made: (made / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_faces_are_made_again(read, made, damage, caplog):
    """Whatever file is damaged, and however; the log says so."""
    expected = read()[0].pixels[:]
    damage(made)
    assert np.array_equal(read()[0].pixels[:], expected)
    assert f"{made} is written again: " in caplog.text


@pytest.mark.parametrize(
    "damage", [lambda file: flip(file, -1), lambda file: cut(file, 1)], ids=["changed", "cut short"]
)
def test_a_face_damaged_later_is_refused_and_made_at_the_next_start(read, made, damage):
    """In the middle of a training there is nothing to take its place."""
    pixels = read()[0].pixels
    expected = pixels[:]
    damage(made / "pixels.npy")
    assert np.array_equal(pixels[:-1], expected[:-1])
    with pytest.raises(IntegrityError, match=r"face 47 is not as it was written.*--resume"):
        pixels[np.array([0, 47])]
    assert np.array_equal(read()[0].pixels[:], expected)


def test_damage_beyond_the_sample_is_found_when_the_face_is_read(read, made, monkeypatch):
    """Of a large file only an even sample is checked at the start: here the first face."""
    monkeypatch.setattr(stored, "CHECKED_BYTES", 1)
    flip(made / "pixels.npy", -1)
    pixels = read()[0].pixels
    assert pixels[46].shape == (32, 32)
    with pytest.raises(IntegrityError, match="face 47"):
        pixels[47]


def other_pixels(file):
    """Another picture, with the size and the time of the last change of the old one."""
    before = file.stat()
    content = file.read_bytes()
    pixels = 255 - np.asarray(Image.open(file))
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes()[: len(content)].ljust(len(content), b"\0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def swap(file):
    """Two files that have changed their names."""
    other = file.with_name("9.png")
    file.rename(file.with_name("x"))
    other.rename(file)
    file.with_name("x").rename(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: Image.new("L", (48, 48), 9).save(file),
        lambda file: Image.new("L", (48, 48), 9).save(file.with_name("new.png")),
        lambda file: file.unlink(),
        lambda file: file.rename(file.with_name("0b.png")),
        lambda file: file.rename(file.parent.parent / "angry" / "moved.png"),
        other_pixels,
        swap,
    ],
    ids=["changed", "added", "removed", "renamed", "another label", "same size and time", "swapped"],
)
def test_a_changed_data_set_is_read_again(read, folder_of_faces, tmp_path, change):
    """The faces then are those from memory; the old ones are replaced, not kept beside."""
    read()
    change(folder_of_faces / "fear" / "3.png")
    for split, found in zip(("train", "valid"), read(), strict=True):
        expected = faces.load(f"folder:{folder_of_faces}", split, SIX, contract=GRAY)
        assert np.array_equal(found.pixels[:], expected.pixels)
        assert found.ids == expected.ids
    assert len(list((tmp_path / "cache").glob("train-*[0-9a-f]"))) == 1


@pytest.mark.usefixtures("made")
def test_another_input_or_label_set_has_its_own_faces(read, tmp_path):
    """Side by side, so that two runs do not replace each other's."""
    read(RGB)
    read(InputContract(40))
    read(labels=label_set("neutral,happiness,surprise,sadness,anger,fear,disgust"))
    assert len(list((tmp_path / "cache").glob("train-*[0-9a-f]"))) == 4


def test_another_decoder_reads_again(read, made, monkeypatch, caplog):
    """Another version of Pillow may decode a JPEG differently."""
    monkeypatch.setattr(cache.PIL, "__version__", "0")
    read()
    assert f"{made} is written again: the faces or how they are read have changed" in caplog.text


def test_only_the_owner_can_read_the_faces(made):
    """They show people."""
    assert made.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o077 == 0 for file in made.glob("*.npy"))


class Killed(BaseException):
    """Simulated SIGKILL."""


def stop_after(monkeypatch, count):
    """Raise Killed instead of decoding face number `count`; return the list of decoded faces."""
    decoded, to_pixels = [], images.to_pixels

    def decode(*arguments):
        if len(decoded) == count:
            raise Killed
        decoded.append(1)
        return to_pixels(*arguments)

    monkeypatch.setattr(images, "to_pixels", decode)
    return decoded


@pytest.mark.parametrize("lost", [0, 1, 4, 1024, 1030, 20_000, 10**6])
def test_interrupted_work_is_continued_and_never_used_as_it_is(read, folder_of_faces, tmp_path, monkeypatch, lost):
    """Killed at face 30, with the last bytes of its file lost: the intact faces are kept, the result is the same."""
    with monkeypatch.context() as patch:
        stop_after(patch, 30)
        with pytest.raises(Killed):
            read()
    assert not list((tmp_path / "cache").glob("train-*[0-9a-f]"))
    file = next((tmp_path / "cache").glob(".train-*.partial")) / "pixels.npy"
    cut(file, min(lost, file.stat().st_size))
    decoded = stop_after(monkeypatch, -1)
    found = read()[0]
    whole = max(0, 30 - -(-lost // 1024))
    assert len(decoded) == 48 - whole + 12
    expected = faces.load(f"folder:{folder_of_faces}", "train", SIX, contract=GRAY)
    assert np.array_equal(found.pixels[:], expected.pixels)
    assert found.content_sha256 == expected.content_sha256
    assert not list((tmp_path / "cache").glob(".*.partial"))


def test_interrupted_work_on_other_faces_is_not_continued(read, folder_of_faces, monkeypatch):
    """A file changed after the kill: nothing of the earlier faces is kept."""
    with monkeypatch.context() as patch:
        stop_after(patch, 30)
        with pytest.raises(Killed):
            read()
    Image.new("L", (48, 48), 9).save(folder_of_faces / "angry" / "0.png")
    found = read()[0]
    expected = faces.load(f"folder:{folder_of_faces}", "train", SIX, contract=GRAY)
    assert np.array_equal(found.pixels[:], expected.pixels)


def test_an_unreadable_face_is_named_and_the_others_are_kept_until_then(read, folder_of_faces):
    """As in memory, whatever the number of threads."""
    for name in ("fear/3.png", "sadness/4.png"):
        (folder_of_faces / name).write_bytes(b"no image")
    for threads in (1, 3):
        with pytest.raises(DataError, match=r"fear/3\.png"):
            read(threads=threads)


def test_a_full_disk_leaves_nothing_behind(read, tmp_path, monkeypatch):
    """Exit code 5, with an option that can help."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stored.Writer, "write", fail)
    with pytest.raises(MachineError, match="No space left on device; choose another folder with --cache FOLDER"):
        read()
    assert not list((tmp_path / "cache").glob(".*partial"))


def load_in_child(read, ready, results):
    ready.wait()
    decoded, to_pixels = [], images.to_pixels
    images.to_pixels = lambda *arguments: decoded.append(1) or to_pixels(*arguments)
    results.put((read()[0].content_sha256, len(decoded)))


def test_two_processes_at_once_read_each_picture_once(read):
    """The second one waits for the first, and uses its faces."""
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=load_in_child, args=(read, ready, results)) for _ in range(2)]
    for process in both:
        process.start()
    (first, some), (second, others) = results.get(timeout=60), results.get(timeout=60)
    for process in both:
        process.join()
    assert first == second
    assert some + others == 60


def test_faces_are_removed_with_nothing_else(read, monkeypatch, tmp_path):
    """After the command; what else is in the folder, such as the user's own data set, stays."""
    monkeypatch.setattr(cache, "available_memory", lambda: 1)
    read(given=False)
    own = tmp_path / "cache" / "train-photos"
    own.mkdir()
    Cache(tmp_path / "cache", given=False).remove()
    assert list((tmp_path / "cache").iterdir()) == [own]
    own.rmdir()
    Cache(tmp_path / "cache", given=False).remove()
    assert not (tmp_path / "cache").exists()
    Cache(tmp_path / "cache", given=False).remove()


def test_faces_in_a_given_folder_are_kept(made):
    """For the next run."""
    Cache(made.parent, given=True).remove()
    assert made.is_dir()


def test_without_the_option_the_folder_is_in_that_of_the_command(tmp_path):
    """With it, it is the one that was given."""
    assert Cache.choose(None, tmp_path) == Cache(tmp_path / "decoded-faces", given=False)
    assert Cache.choose(Path("a"), tmp_path) == Cache(Path("a"), given=True)


@pytest.mark.parametrize("name", [".", "decoded", "fear/decoded"])
def test_a_folder_inside_the_data_set_is_refused(folder_of_faces, name):
    """The next start would take it for a label."""
    listed = list_faces(f"folder:{folder_of_faces}", ("valid",), SIX, protocol="plurality")
    with pytest.raises(UsageError, match="inside the data set"):
        listed.load(GRAY, cache=Cache(folder_of_faces / name, given=True), threads=1)


def test_a_disk_that_fails_is_damage(read, monkeypatch):
    """One line, not a traceback."""
    pixels = read()[0].pixels

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(stored.os, "preadv", fail)
    with pytest.raises(IntegrityError, match="face 0 is not as it was written"):
        pixels[0]


def test_a_folder_that_cannot_be_written_is_refused(read, tmp_path):
    """A file stands in its place: one line, exit code 5."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        read()
