"""What universal_pathlib asks of every path class, asked of `RecallPath`.

The cases follow those of universal_pathlib 0.3.10 (``upath/tests/cases.py`` of
fsspec/universal_pathlib, MIT licence), told anew as tables and with a file among them that is
released. What is different on purpose is in `DIFFERENCES`.
"""

from __future__ import annotations

import os
import pickle
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import upath
from upath import UPath

from conftest import Lab
from mirrored import released_file
from recallfs.upath import RecallPath

IS_NEW = hasattr(upath, "UnsupportedOperation")  # since 0.3; before, less of pathlib was there
UNSUPPORTED = getattr(upath, "UnsupportedOperation", NotImplementedError)
since_0_3 = pytest.mark.skipif(not IS_NEW, reason="universal_pathlib has it since 0.3")

DIFFERENCES = {
    "rename to a bare path": "'lab/a' without a protocol is a local path for universal_pathlib, "
    "and a relative one: no store path begins with a slash, so that it cannot be meant",
    "unlink of a name with magic characters": "the name is taken as it is, not as a pattern",
}
"""What upstream's cases expect and we do not, and why."""

CONTENT = {
    "file1.txt": b"hello world",
    "file2.txt": b"hello world",
    "folder1/file1.txt": b"in a folder",
    "folder1/file2.txt": b"in a folder, too",
}


@pytest.fixture
def base(lab: Lab) -> UPath:
    """Give a folder with four files, one of which is released."""
    path = UPath("recall://lab/base")
    for name, content in CONTENT.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    released_file(lab, "base/file1.txt", CONTENT["file1.txt"])
    assert not (lab.root / "base/file1.txt").exists()
    return path


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """Give the same files in an ordinary folder."""
    folder = tmp_path / "twin"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def names(paths: Iterator[Any] | list[Any], base: Any) -> list[tuple[str, ...]]:
    """Spell paths as what follows their base."""
    start = len(base.parts)
    return sorted(tuple(part for part in path.parts[start:] if part) for path in paths)


# -- paths alone --------------------------------------------------------------------------------

BASE = UPath("recall://lab/base")
FILE = BASE / "folder1" / "file.tar.gz"

PURE: dict[str, tuple[Callable[[], Any], Any]] = {
    "class": (lambda: type(BASE), RecallPath),
    "str": (lambda: str(FILE), "recall://lab/base/folder1/file.tar.gz"),
    "name": (lambda: FILE.name, "file.tar.gz"),
    "stem": (lambda: FILE.stem, "file.tar"),
    "suffix": (lambda: FILE.suffix, ".gz"),
    "suffixes": (lambda: FILE.suffixes, [".tar", ".gz"]),
    "no suffix": (lambda: ((BASE / "no_suffix").suffix, (BASE / "no_suffix").suffixes), ("", [])),
    "with_name": (lambda: FILE.with_name("x.zip").name, "x.zip"),
    "with_suffix": (lambda: FILE.with_suffix(".zip").name, "file.tar.zip"),
    "with_stem": (lambda: FILE.with_stem("x").name, "x.gz"),
    "repr": (lambda: "x.zip" in repr(FILE.with_name("x.zip")), True),
    "parent": (lambda: (FILE.parents[0], FILE.parents[1]), (FILE.parent, BASE)),
    "parents end": (lambda: FILE.parents[-1].parent == FILE.parents[-1], True),
    "absolute": (BASE.is_absolute, True),
    "parents absolute": (lambda: all(p.is_absolute() for p in FILE.parents), True),
    "anchor": (lambda: BASE.anchor, BASE.drive + BASE.root),
    "child": (lambda: UPath("recall://lab/base/folder"), BASE / "folder"),
    "copy": (lambda: (UPath(BASE), type(UPath(BASE))), (BASE, RecallPath)),
    "joinpath": (lambda: BASE.joinpath("a", "b"), BASE / "a" / "b"),
    "trailing slash": (lambda: (BASE / "key/").path, (BASE / "key").path),
    "slash joined": (lambda: UPath("recall://lab/base/", "key/").path, (BASE / "key").path),
    "as_uri": (lambda: UPath(BASE.as_uri()), BASE),
    "protocol": (lambda: BASE.protocol, "recall"),
    "hash": (lambda: hash(UPath(str(BASE))), hash(BASE)),
    "equal": (lambda: UPath(str(BASE)) == BASE != FILE, True),
    "other options": (lambda: UPath(str(BASE), root="/x") == BASE, False),
    "options hash": (lambda: hash(UPath(str(BASE), root="/x")), hash(BASE)),
    "is_relative_to": (
        lambda: (FILE.is_relative_to(BASE), BASE.is_relative_to(FILE)),
        (True, False),
    ),
    "options": (lambda: BASE.storage_options == BASE.fs.storage_options, True),
    "vfspath": (lambda: isinstance(BASE.path, str), True),
}
PURE_0_3: dict[str, tuple[Callable[[], Any], Any]] = {
    "relative_to": (lambda: str(FILE.relative_to(BASE)), "folder1/file.tar.gz"),
    "relative is not absolute": (lambda: FILE.relative_to(BASE).is_absolute(), False),
    "with_segments": (
        lambda: BASE.with_segments(BASE.path, "a", "b").parts[-2:],
        ("a", "b"),
    ),
    "full_match": (
        lambda: [FILE.full_match(p) for p in ("**/*", "**/*.gz", "*.none")],
        [True, True, False],
    ),
    "not of another": (lambda: FILE.is_relative_to(UPath("/some/other")), False),
    "separator": (lambda: FILE.parser.sep, "/"),
    "expanduser": (BASE.expanduser, BASE),
}


@pytest.mark.parametrize("case", PURE)
def test_paths_alone(case: str) -> None:
    """Taking paths apart and putting them together follows pathlib."""
    compute, expected = PURE[case]
    assert compute() == expected


@since_0_3
@pytest.mark.parametrize("case", PURE_0_3)
def test_paths_alone_of_later_versions(case: str) -> None:
    """So does what universal_pathlib learned later."""
    compute, expected = PURE_0_3[case]
    assert compute() == expected


@pytest.mark.parametrize("path", [BASE, FILE, UPath("recall://lab/base", root="/x")], ids=str)
def test_paths_are_pickled(path: UPath) -> None:
    """A path that was pickled is the same path, with its options."""
    again = pickle.loads(pickle.dumps(path))  # noqa: S301 - our own bytes
    assert (type(again), str(again), again.parts) == (RecallPath, str(path), path.parts)
    assert again.storage_options == path.storage_options


# -- reading ------------------------------------------------------------------------------------


def test_stat(base: UPath) -> None:
    """A released file and a folder have the size and kind that they have when they are here."""
    for path, is_kind in ((base, stat.S_ISDIR), (base / "file1.txt", stat.S_ISREG)):
        status = path.stat()
        assert is_kind(status.st_mode)
    assert (base / "file1.txt").stat().st_size == 11


@since_0_3
def test_stat_is_like_that_of_os(base: UPath) -> None:
    """The result has all fields of `os.stat_result`, whole numbers among the first ten."""
    status = (base / "file1.txt").stat()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fields = [status[index] for index in range(os.stat_result.n_sequence_fields)]
    assert all(isinstance(field, int) for field in fields)
    with pytest.warns(UserWarning, match="stat"):
        assert (base / "file1.txt").lstat() == status


KINDS = {
    "exists": (True, True, False),
    "is_file": (False, True, False),
    "is_dir": (True, False, False),
    "is_symlink": (False, False, False),
    "is_socket": (False, False, False),
    "is_fifo": (False, False, False),
    "is_block_device": (False, False, False),
    "is_char_device": (False, False, False),
}


@pytest.mark.parametrize("question", KINDS)
def test_what_is_it(lab: Lab, base: UPath, question: str) -> None:
    """A folder, a released file and nothing answer as pathlib's do; nothing is brought back."""
    paths = (base, base / "file1.txt", base / "none")
    assert tuple(getattr(path, question)() for path in paths) == KINDS[question]
    assert not (lab.root / "base/file1.txt").exists()


@since_0_3
def test_info(base: UPath) -> None:
    """`info` tells the same."""
    file, folder = (base / "file1.txt").info, (base / "folder1").info
    assert (file.exists(), file.is_file(), file.is_dir(), file.is_symlink()) == (1, 1, 0, 0)
    assert (folder.exists(), folder.is_file(), folder.is_dir(), folder.is_symlink()) == (1, 0, 1, 0)


@pytest.mark.parametrize("pattern", ["*.txt", "*", "**/*.txt", "folder1/*"])
def test_glob(base: UPath, twin: Path, pattern: str) -> None:
    """`glob` and `rglob` find what they find in an ordinary folder."""
    assert names(base.glob(pattern), base) == names(twin.glob(pattern), twin)
    if "/" not in pattern and pattern != "*":
        assert names(base.rglob(pattern), base) == names(twin.rglob(pattern), twin)


@pytest.mark.parametrize("folder", ["", "folder1", "folder1/"])
def test_iterdir(base: UPath, twin: Path, folder: str) -> None:
    """Listing gives what is in an ordinary folder, each with a name and existing."""
    listed = list((base / folder if folder else base).iterdir())
    assert {path.name for path in listed} == {path.name for path in (twin / folder).iterdir()}
    assert all(path.name and path.exists() for path in listed)
    assert next(base.parent.iterdir()).exists()


@since_0_3
@pytest.mark.parametrize("top_down", [True, False])
def test_walk(base: UPath, twin: Path, top_down: bool) -> None:
    """`walk` visits what `os.walk` visits, in its order."""

    def fail(error: OSError) -> None:
        raise error

    walked = [
        (os.path.relpath(folder.path, base.path), sorted(folders), sorted(files))
        for folder, folders, files in base.walk(top_down=top_down, on_error=fail)
    ]
    assert walked == [
        (os.path.relpath(folder, twin), sorted(folders), sorted(files))
        for folder, folders, files in os.walk(twin, topdown=top_down)
    ]


@pytest.mark.parametrize(
    "read",
    [
        lambda path: path.read_bytes(),
        lambda path: path.read_text().encode(),
        lambda path: path.read_text(encoding="ascii", errors="strict").encode(),
        lambda path: path.open("rb").read(),
        lambda path: path.open("r", block_size=8192).read().encode(),
        lambda path: path.fs.cat(path.path),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_reading(base: UPath, read: Callable[[UPath], bytes]) -> None:
    """Each way of reading brings the released file back."""
    assert read(base / "file1.txt") == CONTENT["file1.txt"]


@since_0_3
def test_samefile(base: UPath) -> None:
    """Two files of equal bytes are two files."""
    one, two = base / "file1.txt", base / "file2.txt"
    assert one.samefile(one)
    assert one.samefile(one.path)
    assert not one.samefile(two)
    assert not one.samefile(two.path)


@since_0_3
@pytest.mark.parametrize("kind", [str, Path, UPath])
def test_copy_out(base: UPath, tmp_path: Path, kind: Callable[[Any], Any]) -> None:
    """Files and folders are copied to a local folder, however that is named."""
    out = tmp_path / "out"
    out.mkdir()
    (base / "file1.txt").copy(UPath(out / "copied.txt"))
    (base / "file1.txt").copy_into(kind(out))
    (base / "folder1").copy_into(kind(out))
    assert (out / "copied.txt").read_bytes() == (out / "file1.txt").read_bytes() == b"hello world"
    assert (out / "folder1/file2.txt").read_bytes() == CONTENT["folder1/file2.txt"]


@since_0_3
def test_copy_to_where_it_cannot_go(base: UPath, tmp_path: Path) -> None:
    """A folder in the way and a folder that is missing are errors."""
    file = base / "file1.txt"
    with pytest.raises(IsADirectoryError):
        file.copy(UPath(tmp_path))
    for copy, target in ((file.copy, "no/x.txt"), (file.copy_into, "no")):
        with pytest.raises(FileNotFoundError):
            copy(UPath(tmp_path / target))


@since_0_3
@pytest.mark.parametrize("way", ["move", "move_into"])
def test_move_out(base: UPath, tmp_path: Path, way: str) -> None:
    """A released file that is moved elsewhere comes back first, and is forgotten here."""
    target = tmp_path if way == "move_into" else tmp_path / "file1.txt"
    getattr(base / "file1.txt", way)(UPath(target))
    assert (tmp_path / "file1.txt").read_bytes() == CONTENT["file1.txt"]
    assert not (base / "file1.txt").exists()


# -- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", None])
def test_writing(base: UPath, encoding: str | None) -> None:
    """What is written is read again."""
    path = base / "new.txt"
    path.write_text("größe" if encoding else "size", encoding=encoding)
    assert path.read_text(encoding=encoding) == ("größe" if encoding else "size")
    path.write_bytes(b"bytes")
    assert path.read_bytes() == b"bytes"


@pytest.mark.parametrize("parents", [False, True])
def test_mkdir(base: UPath, parents: bool) -> None:
    """Folders are made, with their parents when asked, and once only unless told otherwise."""
    folder = base / "a" / "b" if parents else base / "a"
    folder.mkdir(parents=parents)
    assert folder.is_dir()
    folder.mkdir(parents=parents, exist_ok=True)
    with pytest.raises(FileExistsError):
        folder.mkdir(parents=parents, exist_ok=False)


def test_touch_and_unlink(base: UPath) -> None:
    """A file is made by touching and goes by unlinking, which minds if it is not there."""
    path = base / "touched"
    path.touch()
    assert path.read_bytes() == b""
    path.unlink()
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        path.unlink()
    path.unlink(missing_ok=True)


@since_0_3
def test_touch_leaves_a_file_as_it_is(base: UPath) -> None:
    """A file that exists keeps its bytes when it is touched, or the touch is refused."""
    (base / "file2.txt").touch(exist_ok=True)
    with pytest.raises(FileExistsError):
        (base / "file2.txt").touch(exist_ok=False)
    assert (base / "file2.txt").read_bytes() == CONTENT["file2.txt"]


def test_unlink_takes_a_name_as_it_is(base: UPath) -> None:
    """Unlinking a file whose name looks like a pattern removes no other."""
    assert "unlink of a name with magic characters" in DIFFERENCES
    (base / "file*.txt").write_bytes(b"odd")
    (base / "file*.txt").unlink()
    assert sorted(path.name for path in base.iterdir()) == ["file1.txt", "file2.txt", "folder1"]


def test_rmdir(base: UPath) -> None:
    """Only an empty folder is removed, unless all below it is to go."""
    with pytest.raises(NotADirectoryError):
        (base / "file2.txt").rmdir()
    with pytest.raises(OSError, match="not empty"):
        (base / "folder1").rmdir(recursive=False)
    (base / "folder1").rmdir(recursive=True)
    assert not (base / "folder1").exists()


@since_0_3
def test_a_file_is_not_listed(base: UPath) -> None:
    """A file is no folder, and listing it is an error."""
    with pytest.raises(NotADirectoryError):
        list((base / "file2.txt").iterdir())


@pytest.mark.parametrize("name", ["renamed.txt", "other/renamed.txt"])
def test_rename(lab: Lab, base: UPath, name: str) -> None:
    """A released file is renamed without being brought back, and back again."""
    source, target = base / "file1.txt", base / name
    target.parent.mkdir(exist_ok=True)
    moved = source.rename(target)
    assert moved == target
    assert not source.exists()
    assert moved.exists()
    assert not (lab.root / "base" / name).exists()
    assert moved.rename(source) == source
    assert source.read_bytes() == CONTENT["file1.txt"]


@since_0_3
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_rename_to_a_whole_address(base: UPath, kind: Callable[[UPath], Any]) -> None:
    """The target may be a path or a URL."""
    (base / "folder1/file2.txt").rename(kind(base / "renamed.txt"))
    assert (base / "renamed.txt").read_bytes() == CONTENT["folder1/file2.txt"]


@since_0_3
@pytest.mark.parametrize("kind", [str, Path, UPath])
def test_rename_to_a_bare_path_is_refused(base: UPath, kind: Callable[[str], Any]) -> None:
    """A bare path is relative to a working folder, which a store has not; nothing is moved."""
    assert "rename to a bare path" in DIFFERENCES
    for bare in ("renamed.txt", "lab/base/renamed.txt"):
        with pytest.raises(UNSUPPORTED):
            (base / "folder1/file2.txt").rename(kind(bare))
    assert (base / "folder1/file2.txt").exists()


NOT_THERE: dict[str, tuple[Any, ...]] = {
    "cwd": (),
    "home": (),
    "chmod": (0o777,),
    "lchmod": (0o777,),
    "group": (),
    "owner": (),
    "readlink": (),
    "symlink_to": ("target",),
    "hardlink_to": ("target",),
}


@since_0_3
@pytest.mark.parametrize("method", NOT_THERE)
def test_what_a_store_does_not_have(base: UPath, method: str) -> None:
    """What stores have not is said to be unsupported."""
    with pytest.raises(NotImplementedError):
        getattr(base / "file2.txt", method)(*NOT_THERE[method])
