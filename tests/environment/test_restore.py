"""Building an environment again from an index: on loopback, with packages made for it."""

from __future__ import annotations

import json
import re

import pytest

from conftest import Lab
from recallfs.catalog import records
from recallfs.environment.capture import capture_environment, environment_id
from venvs import make_venv, recall


def _recorded(lab: Lab, index: str, **packages: str) -> tuple[str, str]:
    """Put an environment on record and allow an index; return its digest and label."""
    lab.write_config(f'[environments]\nfolder = "{lab.base / "built"}"\nindexes = ["{index}"]\n')
    told = {
        **capture_environment(),
        "packages": packages,
        "direct": {},
        "executable": "/gone/python",
    }
    told.pop("conda", None)
    identifier = environment_id(told)
    records.save_environment(lab.store, identifier, told)
    return identifier, records.environment(lab.store, identifier)["label"]


def test_an_environment_is_built_and_found(lab: Lab, index: str) -> None:
    """Pinned, hashed, started; it then stands for the recorded one, until it is removed."""
    identifier, label = _recorded(lab, index, tiny="1.0")
    assert lab.cli_json("env", "list")["environments"][0]["interpreter"] is None
    built = lab.cli_json("env", "restore", label)
    place = lab.base / "built" / identifier
    assert (built["is_new"], built["python"]) == (True, str(place / "bin" / "python"))
    assert re.search(r"tiny==1\.0 .*--hash=sha256:", (place / "requirements.txt").read_text(), re.S)
    assert lab.cli_json("env", "list")["environments"][0]["interpreter"] == built["python"]
    assert not lab.cli_json("env", "restore", label)["is_new"]
    lab.cli("env", "remove", label)
    assert not place.exists()


def test_without_uv_pip_builds_it(lab: Lab, index: str) -> None:
    """Where there is no uv, venv and pip do it, with hashes too."""
    pytest.importorskip("ensurepip")
    identifier, label = _recorded(lab, index, tiny="1.0")
    python = make_venv(lab.base / "X")
    done = recall(python, "env", "restore", label, path="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    place = lab.base / "built" / identifier
    assert "--hash=sha256:" in (place / "requirements.txt").read_text()
    assert next(place.glob("lib/python*/site-packages/tiny.py")).exists()


@pytest.mark.parametrize(
    ("packages", "fields", "said"),
    [
        ({"tiny": "2.0"}, {}, "tiny"),
        ({"nowhere": "1.0"}, {}, "nowhere"),
        ({"tiny": "1.0"}, {"python": "3.99.1"}, "3.99.1"),
        ({"tiny": "1.0"}, {"machine": "vax"}, "vax"),
        ({"tiny": "1.0"}, {"direct": {"mine": {"url": "file:///c", "editable": True}}}, "mine"),
    ],
)
def test_what_cannot_be_built_is_refused(
    lab: Lab, index: str, packages: dict[str, str], fields: dict[str, object], said: str
) -> None:
    """One sentence says why, and nothing is left behind."""
    _recorded(lab, index, **packages)
    told = {**capture_environment(), "packages": packages, "direct": {}, **fields}
    identifier = environment_id(told)
    records.save_environment(lab.store, identifier, told)
    done = lab.cli("env", "restore", identifier, "--json", check=False)
    error = json.loads(done.stdout)
    assert (done.returncode, error["kind"]) == (69, "cannot-build")
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in done.stderr
    built = lab.base / "built"
    assert not built.exists() or list(built.iterdir()) == []


def test_a_file_with_another_hash_is_refused(lab: Lab, index: str) -> None:
    """A wheel that is not what the index says it is is not installed."""
    _, label = _recorded(lab, index, tiny="1.0")
    page = lab.base / "index" / "simple" / "tiny" / "index.html"
    page.write_text(re.sub("sha256=[0-9a-f]+", f"sha256={'0' * 64}", page.read_text()))
    done = lab.cli("env", "restore", label, check=False)
    assert done.returncode == 69
    assert list((lab.base / "built").iterdir()) == []


def test_nothing_is_built_that_is_not_configured(lab: Lab) -> None:
    """Without a folder and an index nothing is built."""
    told = {**capture_environment(), "packages": {}, "direct": {}}
    records.save_environment(lab.store, environment_id(told), told)
    done = lab.cli("env", "restore", environment_id(told), check=False)
    assert done.returncode == 12
    assert "environments.folder" in done.stderr


def test_a_built_environment_stays_while_released_files_rest_on_it(lab: Lab) -> None:
    """`recall env remove` refuses, and names the files."""
    lab.released()
    label = next(iter(records.environments(lab.store).values()))["label"]
    done = lab.cli("env", "remove", label, check=False)
    assert done.returncode == 75
    assert "recall://lab/derived.h5" in done.stderr
