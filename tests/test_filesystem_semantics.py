"""`RecallFileSystem`: the corners of fsspec's interface, and what must never go wrong in them."""

from __future__ import annotations

import doctest
import gc
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from actors import open_and_report
from conftest import Lab, sha256
from mirrored import CONTENT, released_file
from recallfs.errors import (
    CatalogError,
    ConflictError,
    InvalidInputError,
    NotRecallableError,
    RecallError,
)
from recallfs.filesystem import RecallFileSystem
from recallfs.release.pins import set_pin
from recallfs.values import Metadata


@pytest.fixture
def fs(lab: Lab) -> RecallFileSystem:
    return RecallFileSystem()


def staging(lab: Lab) -> list[Path]:
    """List what lies in staging."""
    return list((lab.store.control / "staging").iterdir())


# -- instances, threads, processes --------------------------------------------------------------


def test_two_roots_are_two_filesystems(tmp_path: Path) -> None:
    """Instances are cached by root; what one writes the other does not show."""
    one, two = (fsspec.filesystem("recall", root=str(tmp_path / name / "lab")) for name in "ab")
    assert one is not two
    one.pipe("lab/x", b"1")
    assert two.ls("lab") == []
    assert one == pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes


def test_instance_follows_the_configuration(lab: Lab, fs: RecallFileSystem) -> None:
    """An instance from before a change of the configuration shows the stores of after it."""
    assert fs.ls("", detail=False) == ["lab"]
    (lab.base / "other").mkdir()
    lab.cli("init", str(lab.base / "other"), "--name", "other")
    lab.write_config(f'[stores.other]\nroot = "{lab.base}/other"\n')
    assert fs.ls("", detail=False) == ["lab", "other"]
    fs.pipe("other/x", b"1")
    assert (lab.base / "other/x").read_bytes() == b"1"


@pytest.mark.parametrize("mode", ["rb", "r", "wb", "w", "ab"])
def test_open_files_are_pickled(lab: Lab, fs: RecallFileSystem, mode: str) -> None:
    """An `OpenFile` that was pickled, opened or not, opens the same file in the same mode."""
    fs.pipe("lab/x", b"old")
    fresh = fsspec.open("recall://lab/x", mode)
    travelled = pickle.loads(pickle.dumps(fresh))  # noqa: S301 - our own bytes
    with travelled as file:
        if mode.startswith("r"):
            again = pickle.loads(pickle.dumps(travelled))  # noqa: S301 - our own bytes
            assert file.read() in (b"old", "old")
            with again as second:
                assert second.read() in (b"old", "old")
        else:
            file.write("new" if mode == "w" else b"new")
    assert fs.cat("lab/x") == {"r": b"old", "w": b"new", "a": b"oldnew"}[mode[0]]


def test_spawned_process_gets_the_file_back(lab: Lab) -> None:
    """A process that was started from nothing reads a released file by its URL."""
    digest = released_file(lab, "far.bin")
    report = lab.base / "report"
    process = multiprocessing.get_context("spawn").Process(
        target=open_and_report, args=("recall://lab/far.bin", str(report))
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert report.read_text() == digest


def test_threads_read_and_write_at_once(lab: Lab, fs: RecallFileSystem) -> None:
    """64 threads on one instance: each writes its own file, all read one that was released."""
    released_file(lab, "far.bin")
    failures: list[BaseException] = []
    start = threading.Barrier(64)

    def work(number: int) -> None:
        try:
            start.wait()
            assert fs.cat("lab/far.bin") == CONTENT
            fs.pipe(f"lab/t/{number}", b"%d" % number)
            assert fs.cat(f"lab/t/{number}") == b"%d" % number
        except BaseException as error:  # noqa: BLE001 - the main thread looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(fs.ls("lab/t")) == 64
    assert not staging(lab)


# -- absent, or only out of reach ----------------------------------------------------------------

LOOKS: dict[str, Callable[[RecallFileSystem, str], Any]] = {
    "exists": RecallFileSystem.exists,
    "lexists": RecallFileSystem.lexists,
    "isfile": RecallFileSystem.isfile,
    "isdir": RecallFileSystem.isdir,
    "find": RecallFileSystem.find,
    "glob": lambda fs, path: fs.glob(f"{path}/*"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_absent_is_no(fs: RecallFileSystem, look: str) -> None:
    """What is not there is answered by no, or by nothing."""
    for path in ("lab/nothing", "lab/no/where", "nostore/x", "lab/../x"):
        if look in ("find", "glob") and not path.startswith("lab/no"):
            continue
        assert not LOOKS[look](fs, path)


@pytest.mark.parametrize("look", LOOKS)
def test_unmounted_store_is_not_absent(lab: Lab, fs: RecallFileSystem, look: str) -> None:
    """A store whose disk is not mounted is an error: nobody can say what is on it."""
    lab.write_config(f'[stores.away]\nroot = "{lab.base}/not-mounted"\n')
    with pytest.raises(InvalidInputError) as caught:
        LOOKS[look](fs, "away/x")
    assert caught.value.kind == "not-a-store"


@pytest.mark.parametrize("look", LOOKS)
def test_damaged_catalog_is_not_absent(lab: Lab, fs: RecallFileSystem, look: str) -> None:
    """With a catalog that cannot be read, no question is answered by no."""
    fs.pipe("lab/x", b"1")
    lab.store.catalog.close()
    catalog = lab.store.control / "catalog.sqlite"
    for path in catalog.parent.glob("catalog.sqlite*"):
        path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(CatalogError):
        LOOKS[look](fs, "lab/x")


def test_lost_file_exists_and_is_no_file_not_found(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that nothing brings back is on record: reading it is an error of another kind."""
    digest = released_file(lab, "far.bin")
    (lab.base / "mirror/sha256" / digest[:2] / digest[2:4] / digest).unlink()
    assert fs.exists("lab/far.bin")
    for read in (fs.cat, fs.open, fs.open_local, fs.head, fs.ukey):
        if read == fs.ukey:
            assert read("lab/far.bin") == digest
            continue
        with pytest.raises(NotRecallableError) as caught:
            read("lab/far.bin")
        assert not isinstance(caught.value, FileNotFoundError)
    (answer,) = fs.cat(["lab/far.bin"], on_error="return").values()
    assert isinstance(answer, NotRecallableError)
    (answer,) = fs.cat_ranges(["lab/far.bin"], 0, 4, on_error="return")
    assert isinstance(answer, NotRecallableError)


def test_changed_file_has_no_known_state(lab: Lab, fs: RecallFileSystem) -> None:
    """After a file was written behind our back its state is unknown until it is looked at."""
    fs.pipe("lab/x", b"recorded")
    before = fs.ukey("lab/x"), fs.checksum("lab/x")
    (lab.root / "x").write_bytes(b"changed")
    info = fs.info("lab/x")
    assert (info["state"], info["size"]) == ("unknown", 7)
    assert "sha256" not in info
    assert fs.ls("lab")[0]["state"] == "unknown"
    assert before[0] != fs.ukey("lab/x")
    assert before[1] != fs.checksum("lab/x")
    (lab.root / "x").write_bytes(b"recorded")
    assert fs.cat("lab/x") == b"recorded"
    assert fs.info("lab/x")["state"] == "resident"
    released_file(lab, "far.bin")
    (lab.root / "far.bin").write_bytes(b"somebody's")
    assert fs.info("lab/far.bin")["state"] == "unknown"
    (lab.root / "far.bin").unlink()
    (lab.root / "x").unlink()
    assert {item["name"]: item["state"] for item in fs.ls("lab")} == {
        "lab/far.bin": "released",
        "lab/x": "missing",
    }


def test_times(lab: Lab, fs: RecallFileSystem) -> None:
    """`created` and `modified` are those of the record; a recall changes neither."""
    released_file(lab, "far.bin")
    before = fs.created("lab/far.bin"), fs.modified("lab/far.bin")
    fs.cat("lab/far.bin")
    assert (fs.created("lab/far.bin"), fs.modified("lab/far.bin")) == before
    place = lab.root / "far.bin"
    for mtime_ns in range(1_700_000_000_000_000_001, 1_700_000_001_000_000_000, 99_999_989):
        os.utime(place, ns=(mtime_ns, mtime_ns))
        assert Metadata.from_stat(place.stat()).mtime == place.stat().st_mtime
    with pytest.raises(FileNotFoundError):
        fs.modified("lab/nothing")


# -- listing ------------------------------------------------------------------------------------


@pytest.fixture
def tree(lab: Lab, fs: RecallFileSystem) -> RecallFileSystem:
    """Files of all sorts: resident, plain, released, and released in a folder on record only."""
    fs.pipe({"lab/a/1.bin": b"1", "lab/a/deep/2.txt": b"22"})
    (lab.root / "a/plain.bin").write_bytes(b"333")
    released_file(lab, "a/far.bin", b"far away")
    released_file(lab, "gone/far.bin", b"far away")
    (lab.root / "gone").rmdir()
    return fs


def test_find(tree: RecallFileSystem) -> None:
    """`find` gives files that are not here too; with depth, folders and details."""
    names = ["lab/a/1.bin", "lab/a/deep/2.txt", "lab/a/far.bin", "lab/a/plain.bin"]
    assert tree.find("lab/a") == names
    assert tree.find("lab") == [*names, "lab/gone/far.bin"]
    assert tree.find("lab", maxdepth=2) == [*names[:1], *names[2:], "lab/gone/far.bin"]
    assert tree.find("lab", maxdepth=1, withdirs=True) == ["lab", "lab/a", "lab/gone"]
    assert tree.find("lab/a/far.bin") == ["lab/a/far.bin"]
    detail = tree.find("lab", detail=True)
    assert detail["lab/gone/far.bin"]["size"] == 8
    assert detail["lab/gone/far.bin"]["state"] == "released"


def test_du(tree: RecallFileSystem) -> None:
    """`du` counts released files with the size that they have when they are back."""
    assert tree.du("lab") == 1 + 2 + 3 + 8 + 8
    assert tree.du("lab/gone", total=False) == {"lab/gone/far.bin": 8}
    assert tree.du("lab", maxdepth=2) == 1 + 3 + 8 + 8


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("lab/*/*.bin", ["lab/a/1.bin", "lab/a/far.bin", "lab/a/plain.bin", "lab/gone/far.bin"]),
        ("lab/**/*.txt", ["lab/a/deep/2.txt"]),
        ("lab/a/[0-9].bin", ["lab/a/1.bin"]),
        ("lab/a/[!0-9]*.bin", ["lab/a/far.bin", "lab/a/plain.bin"]),
        ("lab/?one/far.*", ["lab/gone/far.bin"]),
        ("lab/g*", ["lab/gone"]),
        ("lab/none*", []),
    ],
)
def test_glob(tree: RecallFileSystem, pattern: str, found: list[str]) -> None:
    """Patterns find what is on record as what is on the disk."""
    assert tree.glob(pattern) == found


def test_walk(tree: RecallFileSystem) -> None:
    """`walk` goes down or up, stops at a depth, and leaves out what the caller takes out."""
    down = list(tree.walk("lab"))
    assert [folder for folder, _, _ in down] == ["lab", "lab/a", "lab/a/deep", "lab/gone"]
    assert down[1][1:] == (["deep"], ["1.bin", "far.bin", "plain.bin"])
    assert [folder for folder, _, _ in tree.walk("lab", topdown=False)] == [
        "lab/a/deep",
        "lab/a",
        "lab/gone",
        "lab",
    ]
    assert [folder for folder, _, _ in tree.walk("lab", maxdepth=1)] == ["lab"]
    for detail in (False, True):
        walk = tree.walk("lab", detail=detail)
        _, folders, _ = next(walk)
        del folders["a" if detail else 0]
        assert [folder for folder, _, _ in walk] == ["lab/gone"]


def test_walk_says_what_it_cannot_see(fs: RecallFileSystem) -> None:
    """A missing folder is left out, raised or told, as asked; a refused one is never left out."""
    assert list(fs.walk("lab/none")) == []
    with pytest.raises(FileNotFoundError):
        list(fs.walk("lab/none", on_error="raise"))
    told: list[OSError] = []
    assert list(fs.walk("lab/none", on_error=told.append)) == []
    assert isinstance(told[0], FileNotFoundError)
    with pytest.raises(ValueError, match="maxdepth"):
        list(fs.walk("lab", maxdepth=0))


@pytest.mark.parametrize("name", ["a[1].bin", "a*.bin", "a?.bin", "[a]/b*.bin"])
def test_a_name_that_exists_is_no_pattern(lab: Lab, fs: RecallFileSystem, name: str) -> None:
    """Files whose names look like patterns are read, moved and removed, and no others with them."""
    others = ["lab/a1.bin", "lab/ab.bin", "lab/a/bb.bin"]
    fs.pipe(dict.fromkeys(others, b"other"))
    fs.pipe({f"lab/{name}": b"this"})
    assert fs.cat(f"lab/{name}") == b"this"
    assert fs.expand_path(f"lab/{name}") == [f"lab/{name}"]
    fs.get_file(f"lab/{name}", str(lab.base / "out.bin"))
    assert (lab.base / "out.bin").read_bytes() == b"this"
    fs.mv(f"lab/{name}", f"lab/moved/{name}")
    fs.rm(f"lab/moved/{name}")
    assert sorted(fs.find("lab")) == sorted(others)


def test_folders_with_odd_names_are_removed_whole(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder whose name looks like a pattern is found, expanded and removed as any other."""
    fs.pipe({"lab/d[1]/sub/x": b"1", "lab/d1/x": b"2"})
    assert fs.expand_path("lab/d[1]", recursive=True) == [
        "lab/d[1]",
        "lab/d[1]/sub",
        "lab/d[1]/sub/x",
    ]
    assert fs.expand_path(["lab/d[1]", "lab/d?"]) == ["lab/d1", "lab/d[1]"]
    fs.rm("lab/d[1]", recursive=True)
    assert fs.find("lab") == ["lab/d1/x"]


# -- reading ------------------------------------------------------------------------------------


def test_parts_of_files(lab: Lab, fs: RecallFileSystem) -> None:
    """Heads, tails, blocks and ranges are those of the bytes, of a released file too."""
    released_file(lab, "far.bin", b"0123456789")
    assert fs.tail("lab/far.bin", 3) == b"789"
    assert fs.tail("lab/far.bin", 0) == b""
    assert fs.tail("lab/far.bin", 99) == b"0123456789"
    assert fs.head("lab/far.bin", 2) == b"01"
    assert fs.read_block("lab/far.bin", 2, 3) == b"234"
    assert fs.read_block("lab/far.bin", 8, None) == b"89"
    assert fs.cat_ranges(["lab/far.bin"] * 2, [0, -2], [1, None]) == [b"0", b"89"]
    fs.pipe("lab/lines", b"a\nb\nc\n")
    assert fs.read_block("lab/lines", 1, 2, delimiter=b"\n") == b"b\n"
    answers = fs.cat_ranges(["lab/lines", "lab/none"], 0, 2, on_error="return")
    assert answers[0] == b"a\n"
    assert isinstance(answers[1], FileNotFoundError)
    assert fs.cat(["lab/lines", "lab/none"], on_error="omit") == {"lab/lines": b"a\nb\nc\n"}
    with pytest.raises(FileNotFoundError):
        fs.cat(["lab/lines", "lab/none"])


def test_open_file_says_what_it_is(lab: Lab, fs: RecallFileSystem) -> None:
    """An open file is a native one, with a descriptor, and knows its size and path."""
    fs.pipe("lab/x", b"0123")
    with fs.open("lab/x") as file:
        assert (file.size, file.path, file.fs) == (4, "lab/x", fs)
        assert os.fstat(file.fileno()).st_ino == (lab.root / "x").stat().st_ino
        assert not file.closed
    assert file.closed


@pytest.mark.parametrize(
    ("encoding", "newline"), [("utf-8", None), ("utf-16-le", ""), ("latin-1", "\n")]
)
def test_text_keeps_its_encoding(fs: RecallFileSystem, encoding: str, newline: str | None) -> None:
    """Text is written and read in the encoding that is asked for."""
    with fs.open("lab/t", "w", encoding=encoding, newline=newline) as file:
        file.write("é\nü")
    assert fs.cat("lab/t").decode(encoding) == "é\nü"
    with fs.open("lab/t", "rt", encoding=encoding, newline=newline) as file:
        assert file.read() == "é\nü"


@pytest.mark.parametrize("opened", [fsspec.open, RecallFileSystem.open])
def test_text_that_cannot_be_encoded_leaves_nothing(
    lab: Lab, fs: RecallFileSystem, opened: Any
) -> None:
    """A character that the encoding does not have stops the file from appearing."""
    arguments = (fs, "lab/t") if opened is RecallFileSystem.open else ("recall://lab/t",)

    def write() -> None:
        with opened(*arguments, "w", encoding="ascii") as file:
            file.write("a")
            file.write("é")

    with pytest.raises(UnicodeEncodeError):
        write()
    assert not fs.exists("lab/t")
    assert not staging(lab)


@pytest.mark.parametrize("mode", ["r+b", "r+", "w+b", "w+", "a+", "rw"])
def test_modes_that_are_not_there_say_which_are(fs: RecallFileSystem, mode: str) -> None:
    """Reading and writing at once is refused by a sentence that names what works."""
    fs.pipe("lab/x", b"1")
    with pytest.raises(InvalidInputError, match="use rb, wb, xb or ab"):
        fs.open("lab/x", mode)
    assert fs.cat("lab/x") == b"1"


def test_signing_is_not_there(fs: RecallFileSystem) -> None:
    """There are no links that others could use, and that is said."""
    with pytest.raises(NotImplementedError, match="not implemented"):
        fs.sign("lab/x")


# -- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "gzip", "bz2", "xz"])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_abandoned_url_leaves_nothing(
    lab: Lab, fs: RecallFileSystem, mode: str, compression: str | None
) -> None:
    """A writer that was opened by URL and dropped unclosed does not appear as a file."""
    file = fsspec.open("recall://lab/x", mode, compression=compression).open()
    file.write("half" if mode == "w" else b"half")
    del file
    gc.collect()
    assert not fs.exists("lab/x")
    assert not staging(lab)


def test_transaction_is_refused_as_a_whole(lab: Lab, fs: RecallFileSystem) -> None:
    """If one file of a transaction may not be written, none is."""
    fs.pipe({"lab/a": b"old", "lab/pinned": b"old"})

    def write_both() -> None:
        with fs.transaction:
            for name in ("a", "pinned", "z"):
                fs.pipe(f"lab/{name}", b"new")
            set_pin(lab.store, lab.entry("pinned"), True, "shown on a poster")

    with pytest.raises(ConflictError):
        write_both()
    assert fs.cat("lab", recursive=True, on_error="omit") == {
        "lab/a": b"old",
        "lab/pinned": b"old",
    }
    assert not staging(lab)
    fs.pipe("lab/a", b"after")
    assert fs.cat("lab/a") == b"after"


def test_transaction_takes_in_every_way_of_writing(lab: Lab, fs: RecallFileSystem) -> None:
    """Files that are copied, touched or put in a transaction appear at its end, not before."""
    fs.pipe("lab/source", b"1")
    local = lab.base / "local"
    local.write_bytes(b"2")
    names = [f"lab/new/{name}" for name in ("copied", "opened", "put", "touched")]
    with fs.transaction:
        fs.cp("lab/source", names[0])
        with fs.open(names[1], "w") as file:
            file.write("3")
        fs.put_file(str(local), names[2])
        fs.touch(names[3])
        assert fs.find("lab/new") == []
    assert list(fs.cat(names).values()) == [b"1", b"3", b"2", b""]


def test_transaction_with_an_open_file_is_refused(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that is still open at the end would be cut off: the transaction is refused."""
    kept = []

    def leave_open() -> None:
        with fs.transaction:
            fs.pipe("lab/a", b"whole")
            kept.append(fs.open("lab/b", "w"))
            kept[0].write("part")

    with pytest.raises(InvalidInputError, match="not closed"):
        leave_open()
    assert fs.find("lab") == []
    assert not staging(lab)


def test_transaction_in_a_transaction_is_refused(fs: RecallFileSystem) -> None:
    """Fsspec would forget the files of the outer transaction; here it is an error."""

    def nest() -> None:
        with fs.transaction:
            fs.pipe("lab/a", b"1")
            with fs.transaction:
                fs.pipe("lab/b", b"2")

    with pytest.raises(InvalidInputError, match="under way"):
        nest()
    assert fs.find("lab") == []
    with fs.transaction:
        fs.pipe("lab/c", b"3")
    assert fs.find("lab") == ["lab/c"]


def test_put_and_get_of_whole_folders(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder goes in and comes out again whole, released files included."""
    source = lab.base / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    (source / "sub/b").write_bytes(CONTENT)
    fs.put(str(source), "lab/", recursive=True)
    assert fs.find("lab") == ["lab/source/a", "lab/source/sub/b"]
    released_file(lab, "source/sub/b")
    fs.get("lab/source", str(lab.base / "out"), recursive=True)
    assert (lab.base / "out/a").read_bytes() == b"a"
    assert (lab.base / "out/sub/b").read_bytes() == CONTENT


# -- filesystems on top -------------------------------------------------------------------------


def test_many_files_by_one_pattern(fs: RecallFileSystem) -> None:
    """`fsspec.open_files` numbers what it writes and finds it again."""
    with fsspec.open_files("recall://lab/part-*.csv", "w", num=3) as files:
        for number, file in enumerate(files):
            file.write(str(number))
    with fsspec.open_files("recall://lab/part-*.csv", "r") as files:
        assert [file.read() for file in files] == ["0", "1", "2"]


def test_mapper(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder is a mapping of names to bytes."""
    mapper = fsspec.get_mapper("recall://lab/map", create=True)
    mapper.setitems({"a/b": b"1", "c": b"2"})
    released_file(lab, "map/far")
    assert sorted(mapper) == ["a/b", "c", "far"]
    assert mapper["far"] == CONTENT
    assert "none" not in mapper
    with pytest.raises(KeyError):
        mapper["none"]
    del mapper["c"]
    assert sorted(mapper) == ["a/b", "far"]
    mapper.clear()
    assert fs.find("lab/map") == []


def test_folder_as_a_filesystem(lab: Lab, fs: RecallFileSystem) -> None:
    """`DirFileSystem` shows a folder of a store as a whole filesystem."""
    released_file(lab, "sub/far.bin")
    below = DirFileSystem("lab/sub", fs)
    below.pipe("new/x", b"1")
    assert below.find("") == ["far.bin", "new/x"]
    assert below.cat("far.bin") == CONTENT
    with fsspec.open("dir://new/x::recall://lab/sub") as file:
        assert file.read() == b"1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("protocol", ["simplecache", "filecache", "blockcache"])
def test_caches_on_top(lab: Lab, fs: RecallFileSystem, protocol: str) -> None:
    """Fsspec's caches bring a file back; those that check see a change, `simplecache` does not."""
    released_file(lab, "far.bin")
    options: dict[str, Any] = {"cache_storage": str(lab.base / "cache")}
    if protocol != "simplecache":
        options["check_files"] = True

    def read() -> bytes:
        with fsspec.open(f"{protocol}::recall://lab/far.bin", **{protocol: options}) as file:
            return bytes(file.read())

    assert [read(), read()] == [CONTENT, CONTENT]
    assert (lab.root / "far.bin").exists()
    fs.pipe("lab/far.bin", b"new")
    assert read() == (CONTENT if protocol == "simplecache" else b"new")


# Older versions of `filecache` ask for the key of a file before it is written.
@pytest.mark.parametrize("protocol", ["simplecache", "blockcache"])
def test_caches_write_through(lab: Lab, fs: RecallFileSystem, protocol: str) -> None:
    """What is written through a cache is in the store, and on record."""
    options = {"cache_storage": str(lab.base / "cache")}
    with fsspec.open(f"{protocol}::recall://lab/x", "wb", **{protocol: options}) as file:
        file.write(b"through")
    assert fs.cat("lab/x") == b"through"
    assert fs.info("lab/x")["sha256"] == sha256(lab.root / "x")


def test_cache_never_keeps_what_failed(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that could not be brought back is not in a cache, and is read once it can be."""
    released_file(lab, "far.bin")
    config = lab.config.read_text()
    lab.write_config('[[sources.mirror]]\nname = "copies"\nurl = "nosuch://x"\nlayout = "sha256"\n')
    options = {"cache_storage": str(lab.base / "cache")}
    url = "simplecache::recall://lab/far.bin"
    with pytest.raises(RecallError), fsspec.open(url, simplecache=options) as file:
        file.read()
    lab.config.write_text(config)
    with fsspec.open(url, simplecache=options) as file:
        assert file.read() == CONTENT


def test_examples_of_the_page_are_true() -> None:
    """What the page of the filesystem shows is what happens."""
    page = Path(__file__).parents[1] / "docs/reference/filesystem.md"
    text = "\n".join(
        "" if line.startswith("```") else line for line in page.read_text().split("\n")
    )
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    outcome = doctest.DocTestRunner().run(examples)
    assert outcome.attempted > 5
    assert outcome.failed == 0
