"""What a slice of an HDF5 dataset will read, fetched together before h5py reads it chunk by chunk.

h5py asks a file for one chunk after the other, and does not say which it will want. The slice does:
so `h5py.Dataset.__getitem__` and `read_direct` are wrapped as long as a file is open in parts. What
is fetched here is fetched before h5py takes its lock.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from recallfs.partial.reading import PartialFile

_BLOCKS = 4096
"""How many single places of a selection are looked at; of more, none."""

_lock = threading.RLock()  # a file that is collected as garbage detaches in any thread
_users = 0
_undo: list[Callable[[], None]] = []
_find: Callable[[bytes], PartialFile | None] | None = None


def attach(find: Callable[[bytes], PartialFile | None]) -> None:
    """Look at slices from now on, until `detach` was called as often.

    Parameters
    ----------
    find : callable
        Gives the open file that h5py knows by a name.
    """
    global _users, _find  # noqa: PLW0603 - h5py is the process's
    import h5py

    with _lock:
        _users += 1
        _find = find
        if _users > 1 or _undo:
            return
        for name, wrap in (("__getitem__", _getting), ("read_direct", _reading)):
            original = vars(h5py.Dataset)[name]
            wrapped = wrap(original)
            setattr(h5py.Dataset, name, wrapped)
            _undo.append(functools.partial(_restore, h5py.Dataset, name, wrapped, original))


def detach() -> None:
    """Leave h5py as it was, unless another file is open in parts."""
    global _users  # noqa: PLW0603 - h5py is the process's
    with _lock:
        _users -= 1
        while _undo and not _users:
            _undo.pop()()


def _restore(owner: Any, name: str, wrapped: Any, original: Any) -> None:
    if vars(owner).get(name) is wrapped:  # else somebody has wrapped it since
        setattr(owner, name, original)


def _getting(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def getitem(self: Any, args: Any, *more: Any, **kwargs: Any) -> Any:
        if _users:
            _prepare(self, args)
        return original(self, args, *more, **kwargs)

    return getitem


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read_direct(self: Any, dest: Any, source_sel: Any = None, dest_sel: Any = None) -> Any:
        if _users:
            _prepare(self, () if source_sel is None else source_sel)
        return original(self, dest, source_sel, dest_sel)

    return read_direct


def _prepare(dataset: Any, args: Any) -> None:
    """Fetch what a slice of a dataset needs, if its file is one of ours."""
    from h5py import h5f

    try:
        file = None if _find is None else _find(h5f.get_name(dataset.id))
        if file is None or not file.index.datasets:
            return
        known = file.index.by_path.get(dataset.name)
        boxes = [] if known is None or known.shape != dataset.shape else list(_boxes(dataset, args))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return  # the read itself says what is wrong with it
    if known is None or not boxes:
        return
    found = [file.index.units_in_box(known, low, high) for low, high in boxes]
    file.prefetch(np.unique(np.concatenate(found)))


def _boxes(dataset: Any, args: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over boxes that hold all that a slice selects: first elements, and those after."""
    from h5py import h5s
    from h5py._hl import selections

    if isinstance(args, selections.Selection):
        space = args.id
    else:
        given = args if isinstance(args, tuple) else (args,)
        wanted = tuple(item for item in given if not isinstance(item, str))  # names of fields
        space = selections.select(dataset.shape, wanted, dataset=dataset).id
    if not space.get_select_npoints():
        return
    kind = space.get_select_type()
    if kind == h5s.SEL_POINTS:
        if space.get_select_elem_npoints() <= _BLOCKS:
            for point in space.get_select_elem_pointlist():
                yield [int(item) for item in point], [int(item) + 1 for item in point]
        return
    if kind == h5s.SEL_HYPERSLABS and not space.is_regular_hyperslab():
        if space.get_select_hyper_nblocks() <= _BLOCKS:
            for first, last in space.get_select_hyper_blocklist():
                yield [int(item) for item in first], [int(item) + 1 for item in last]
        return
    first, last = space.get_select_bounds()
    yield [int(item) for item in first], [int(item) + 1 for item in last]
