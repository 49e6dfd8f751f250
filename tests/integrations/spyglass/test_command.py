"""Rows on the command line: what they name, what is told of them, and what may not be said."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from recallfs.cli.app import main
from recallfs.cli.schemas import document, strict

pytestmark = pytest.mark.spyglass

SHORT = 'Mean & {"name": "short"}'


def run(command: str, *words: str, capfd: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """Run a command here and return its JSON, which fits its schema."""
    capfd.readouterr()
    assert main([command, *words, "--json"]) == code
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, strict(document(command)))
    return found


def refused(command: str, *words: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command that is refused; return the one sentence that it says."""
    capfd.readouterr()
    assert main([command, *words]) != 0
    said = capfd.readouterr()
    assert not said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith(("error:", "Error:"))]
    assert "Traceback" not in said.err
    return line


def test_all_the_way(made: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Surveyed, tried, adopted, proved, released and brought back by the names of rows alone."""
    before = run("survey", "--spyglass", capfd=capfd)
    by_table = {amount["table"]: amount for amount in before["tables"]}
    means = by_table["`test_means`.`__mean`"]
    assert (means["files"], means["there_files"], means["adopted_files"]) == (2, 2, 0)
    assert means["recipes"] == ["mean"]
    assert means["last_access"]
    assert by_table[made.recording.full_table_name]["recipes"] == ["spyglass.recording-v1"]
    tried = run("trial", "--spyglass", SHORT, capfd=capfd)
    assert [item["outcome"] for item in tried["files"]] == ["exact"]
    assert refused("prove", "--spyglass", SHORT, capfd=capfd).startswith(
        "error: nothing is on record of"
    ), "a trial adopts nothing"
    (adopted,) = run("adopt", "--spyglass", SHORT, capfd=capfd)["files"]
    assert adopted["status"] == "bound"
    (again,) = run("adopt", "--spyglass", SHORT, capfd=capfd)["files"]
    assert again["status"] == "there"
    (proved,) = run("prove", "--spyglass", "Mean", capfd=capfd)["proved"]
    assert proved["level"] == "exact"
    made.close()
    done = run("release", "--spyglass", "Mean", "--yes", "--hold", "1d", capfd=capfd)
    assert [item["url"] for item in done["released"]] == [proved["url"]]
    assert not made.place(made.mean).exists()
    (after,) = run("survey", "--spyglass", "Mean", capfd=capfd)["tables"]
    assert (after["there_files"], after["adopted_files"], after["released_files"]) == (1, 1, 1)
    assert main(["undo", proved["url"]]) == 0


def test_what_names_rows(made: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Columns of tables upstream restrict, too; SQL does; nothing matches by being unknown."""
    from recallfs.integrations.spyglass.restriction import parse
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    table = "v1.SpikeSortingRecording"
    for condition, count in (
        ('{"nwb_file_name": "rat1_.nwb"}', 1),
        ('{"nwb_file_name": "rat2_.nwb"}', 0),
        ('{"preproc_param_name": "default", "sort_group_id": 0}', 1),
        ('{"sort_group_id": 7}', 0),
        (f'{{"recording_id": "{made.key["recording_id"]}"}}', 1),
        ("analysis_file_name LIKE 'rat1%'", 1),
        ("analysis_file_name LIKE 'rat2%'", 0),
    ):
        assert len(parse(stores, f"{table} & {condition}")) == count, condition
    assert len(parse(stores, "spyglass_tables:Mean")) == 2
    assert len(parse(stores, "spyglass_tables:MeanOutput.Mean")) == 0
    assert len(parse(stores, 'Mean & {"samples": 16}')) == 1


@pytest.mark.parametrize(
    ("restriction", "sentence"),
    [
        ("", "is no restriction; write TABLE or TABLE & CONDITION"),
        ("Mean &", "is no restriction"),
        ("Nothing", "no recipe declares a table named Nothing"),
        ("SpikeSortingRecording", "write which one you mean"),
        ("nothing:Mean", "cannot be imported"),
        ("spyglass_tables:Nothing", "has no table named Nothing"),
        ("os:sep", "has no table named sep"),
        ('Mean & {"name": ', "is not JSON"),
        ('Mean & {"name": {"a": 1}}', "is not one JSON object of columns with texts and numbers"),
        ('Mean & {"samples_": 4}', "has a column 'samples_'"),
        ("Mean & samples_ = 4", "samples_"),
        ("Mean & name = (", "the database cannot answer this"),
        ('Mean & {"name": "none"}', "no row matches"),
        ("spyglass.common:Nwbfile", "a recipe must be declared for"),
    ],
)
def test_what_names_none(
    made: Any, capfd: pytest.CaptureFixture[str], restriction: str, sentence: str
) -> None:
    """What cannot be understood is one sentence, and nothing is done."""
    assert sentence in refused("adopt", "--spyglass", restriction, capfd=capfd)
    assert not list((made.root / ".recall" / "entries").rglob("*.rsc1"))


def test_the_database_is_down(made: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The command says so, with an exit code of its own."""
    import datajoint

    connection = datajoint.conn()
    before = dict(connection.conn_info)
    connection.conn_info.update(port=1)
    connection.close()
    try:
        assert "does not answer" in refused("adopt", "--spyglass", SHORT, capfd=capfd)
        assert main(["survey", "--spyglass"]) == 30
    finally:
        connection.conn_info.update(before)
        connection.connect()


def test_a_recording_of_v0(folder: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder without a row of its own in AnalysisNwbfile is proved, released, and read."""
    from recallfs.integrations import spyglass

    table = "v0.SpikeSortingRecording"
    (adopted,) = run("adopt", "--spyglass", table, capfd=capfd)["files"]
    assert adopted["status"] == "bound"
    assert "proves nothing" in adopted["notes"][0]
    proved = run("prove", "--spyglass", table, capfd=capfd)["proved"]
    files = {path for path in folder.place.rglob("*") if path.is_file()}
    assert len(proved) == len(files) > 20
    before = folder.read()
    (amount,) = run("survey", "--spyglass", table, capfd=capfd)["tables"]
    assert amount["size_bytes"] == sum(path.stat().st_size for path in files)
    digests = {path: path.read_bytes() for path in files}
    folder.pipeline.close()
    run("release", "--spyglass", table, "--yes", "--hold", "0s", capfd=capfd)
    assert not [path for path in folder.place.rglob("*") if path.is_file()]
    (amount,) = run("survey", "--spyglass", table, capfd=capfd)["tables"]
    assert (amount["there_files"], amount["released_files"]) == (0, 1)
    spyglass.install()
    try:
        assert (folder.read() == before).all()
    finally:
        spyglass.uninstall()
    assert {path: path.read_bytes() for path in files} == digests


def test_without_spyglass_rows(made: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Rows and addresses exclude each other where they would contradict."""
    assert "leave out FILE" in refused("adopt", "x", "--spyglass", SHORT, capfd=capfd)
    for command in ("prove", "trial", "survey"):
        assert main([command]) == 2
    assert main(["trial", "x", "--spyglass", SHORT]) == 2
