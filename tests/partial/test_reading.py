"""Reading parts of files that are not here."""

from __future__ import annotations

import h5py
import numpy as np

from served import Served, write_hdf5


def test_a_released_file_is_read_in_parts(served: Served) -> None:
    """Metadata come without a request, a slice by one, and the file stays released."""
    values = write_hdf5(served.lab.base / "made.h5")
    served.release("a.h5", served.lab.base / "made.h5")
    assert served.has_skeleton("a.h5")
    with served.parts().open() as parts, h5py.File(parts, "r") as file:
        assert file["group"].attrs["about"] == "a test"
        assert file["group/gzip"].shape == (4000, 32)
        np.testing.assert_array_equal(file["group/small"][:], values["small"])
        assert served.asked() == []
        np.testing.assert_array_equal(file["group/gzip"][150:250], values["gzip"][150:250])
        assert len(served.asked()) == 1
        np.testing.assert_array_equal(file["group/plain"][50:950, 3], values["plain"][50:950, 3])
        assert len(served.asked()) == 1
        np.testing.assert_array_equal(file["group/contiguous"][:], values["contiguous"])
        assert len(served.asked()) == 1
        for name, expected in values.items():
            np.testing.assert_array_equal(file[f"group/{name}"][()], expected)
    assert not (served.lab.root / "a.h5").exists()
