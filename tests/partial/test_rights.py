"""Users who may not write to a store, or not read a file: what they get of it in parts."""

from __future__ import annotations

import pytest

from partial_actors import read_part
from served import Served, write_hdf5
from test_readers_without_rights import BEN, as_user, open_up

pytestmark = pytest.mark.services


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_parts_are_for_those_who_could_read_the_file(served: Served, mode: int) -> None:
    """A reader gets parts into a cache of their own; who could not have read the file gets none."""
    made = served.lab.base / "made.h5"
    write_hdf5(made)
    made.chmod(mode)
    content = served.release("a.h5", made)
    open_up(served.lab)
    told = as_user(served.lab, BEN, read_part, 100_000, 100_020)
    if mode == 0o644:
        assert told == content[100_000:100_020].hex()
    else:
        assert told["kind"] == "access-denied"
    assert served.asked() == [] or mode == 0o644
