"""The configuration: what it accepts, what it says of mistakes, and how stores are added."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from catalog_actors import load_config_as_nobody, open_to_all, register_many
from processes import start
from recallfs.config import (
    CacheSettings,
    Config,
    EnvironmentSettings,
    Floor,
    MirrorSettings,
    RecallSettings,
    RecipeSettings,
    ReleaseSettings,
    StoreSettings,
    config_path,
    load_config,
    register_store,
)
from recallfs.errors import ConflictError, InvalidInputError

FULL = """
# the lab's stores
[stores.analysis]
root = "/data/analysis"
catalog = "postgresql://db/recall"
vault = "/vault"
recall_missing = false
order = ["recompute", "mirror"]

[stores."my-lab.2"]
root = "~/lab"

[recipes]
modules = ["lab.recipes"]
paths = ["/data/code"]
timeout_s = 60
memory_bytes = "4GiB"
threads = 8

[[sources.mirror]]
name = "tape"
url = "s3://bucket/prefix"
layout = "sha256"
failure_domain = "tape robot"
options = { anon = true, retries = 3 }

[[sources.mirror]]
name = "nas"
url = "file:///nas"

[release]
hold = "14d"
grace = "2d"
proof_validity = "1y"
copies = 3
max_skeleton = 0.1

[recall]
recomputes = 6
recomputes_per_user = 3
fetches = 20
fetches_per_user = 10
keep_free = "5%"
budget_folder = "/run/recallfs"

[cache]
folder = "/scratch/me"
limit = "1TB"
"""


def load(tmp_path: Path, text: str, **variables: str) -> Config:
    """Load a configuration from text, with these environment variables and no others."""
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, variables)


def refused(tmp_path: Path, text: str, **variables: str) -> str:
    """Return the message with which a configuration is refused."""
    with pytest.raises(InvalidInputError) as caught:
        load(tmp_path, text, **variables)
    assert caught.value.kind == "invalid-config"
    return str(caught.value)


def test_every_key_is_read(tmp_path: Path) -> None:
    """Each key of a full configuration arrives as a value of its type."""
    config = load(tmp_path, FULL)
    assert config.stores == {
        "analysis": StoreSettings(
            root=Path("/data/analysis"),
            catalog="postgresql://db/recall",
            vault=Path("/vault"),
            recall_missing=False,
            order=("recompute", "mirror"),
        ),
        "my-lab.2": StoreSettings(root=Path.home() / "lab"),
    }
    assert config.recipes == RecipeSettings(
        modules=("lab.recipes",),
        paths=(Path("/data/code"),),
        timeout_s=60.0,
        memory_bytes=4 * 2**30,
        threads=8,
    )
    assert config.mirrors == (
        MirrorSettings(
            name="tape",
            url="s3://bucket/prefix",
            options={"anon": True, "retries": 3},
            layout="sha256",
            failure_domain="tape robot",
        ),
        MirrorSettings(name="nas", url="file:///nas"),
    )
    assert config.release == ReleaseSettings(
        hold=timedelta(days=14),
        grace=timedelta(days=2),
        proof_validity=timedelta(days=365.25),
        copies=3,
        max_skeleton=0.1,
    )
    assert config.recall == RecallSettings(
        6, 3, 20, 10, Floor(fraction=0.05), budget_folder=Path("/run/recallfs")
    )
    assert config.cache == CacheSettings(Path("/scratch/me"), 10**12)


@pytest.mark.parametrize(
    ("given", "kept"),
    [('"10GB"', 10**10), ("0", 0), ('"0"', 0), ('"2%"', 2 * 10**9), ("500", 500), (None, 10**9)],
)
def test_what_is_to_stay_free(tmp_path: Path, given: str | None, kept: int) -> None:
    """A size, none, or a part of the disk; by default 1%, here of 100 GB."""
    config = load(tmp_path, "" if given is None else f"[recall]\nkeep_free = {given}\n")
    assert config.recall.keep_free.on(100 * 10**9) == kept
    assert RecallSettings().keep_free.on(10**15) == 10 * 2**30


@pytest.mark.parametrize("given", ['"100%"', '"-1%"', "true", '"much"', '"x%"'])
def test_what_cannot_stay_free(tmp_path: Path, given: str) -> None:
    """Nonsense is refused by key."""
    assert "recall.keep_free" in refused(tmp_path, f"[recall]\nkeep_free = {given}\n")


def test_channels_of_conda_are_urls(tmp_path: Path) -> None:
    """Servers and folders can be allowed, without passwords; a folder's URL has three slashes."""
    allowed = '["https://conda.anaconda.org/conda-forge/", "file:///srv/channel"]'
    config = load(tmp_path, f"[environments]\nchannels = {allowed}\n")
    channels = ("https://conda.anaconda.org/conda-forge", "file:///srv/channel")
    assert config.environments.channels == channels
    for url in ("conda-forge", "file:srv", "file://host/c", "https://me:word@host/c"):
        text = f'[environments]\nchannels = ["{url}"]\n'
        assert "environments.channels" in refused(tmp_path, text)


def test_the_page_names_every_key() -> None:
    """The reference page mentions each key that the configuration has, and shows FULL's tables."""
    page = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
    text = page.read_text(encoding="utf-8")
    for settings in (
        StoreSettings,
        RecipeSettings,
        MirrorSettings,
        ReleaseSettings,
        RecallSettings,
        CacheSettings,
        EnvironmentSettings,
    ):
        for key in settings.__dataclass_fields__:
            assert f"`{key}`" in text, f"{settings.__name__}.{key}"


def test_the_examples_of_the_page_are_valid(tmp_path: Path) -> None:
    """Each TOML block of the reference page loads."""
    page = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
    blocks = page.read_text(encoding="utf-8").split("```toml\n")[1:]
    assert blocks
    for block in blocks:
        load(tmp_path, block.split("```")[0])


@pytest.mark.parametrize("text", ["", "\n# nothing\n", None])
def test_nothing_is_a_configuration(tmp_path: Path, text: str | None) -> None:
    """An empty file and no file at all give the defaults."""
    config = load_config(tmp_path / "none.toml", {}) if text is None else load(tmp_path, text)
    assert config.stores == {}
    assert config.release == ReleaseSettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[relese]\nhold = '1d'", "unknown key 'relese'; did you mean 'release'?"),
        ("[release]\nholt = '1d'", "unknown key 'release.holt'; did you mean 'hold'?"),
        ("[stores.a]\nroots = '/a'", "unknown key 'stores.a.roots'; did you mean 'root'?"),
        ("[sources]\nmirrors = []", "unknown key 'sources.mirrors'; did you mean 'mirror'?"),
        ("[recipes]\nxyzzy = 1", "unknown key 'recipes.xyzzy' (known here: modules, paths,"),
        ("[stores.a]", "stores.a.root must be given"),
        ("[stores.a]\nroot = 'data'", "stores.a.root cannot be 'data': an absolute path"),
        ("[stores.a]\nroot = ''", "stores.a.root cannot be ''"),
        ("[stores.a]\nroot = 3", "stores.a.root cannot be 3: a text"),
        ("[stores.a]\nroot = '/a'\nvault = 'v'", "stores.a.vault cannot be 'v'"),
        ("[stores.a]\nroot = '/a'\nrecall_missing = 'maybe'", "recall_missing cannot be 'maybe'"),
        ("[stores.a]\nroot = '/a'\norder = 1", "stores.a.order cannot be 1"),
        ("[stores.'a b']\nroot = '/a'", "must be named by letters"),
        ("[stores.'../x']\nroot = '/a'", "must be named by letters"),
        ("stores = 1", "stores must be a table"),
        ("[stores]\na = 1", "stores.a must be a table"),
        ("release = []", "release must be a table"),
        ("[sources.mirror]\nname = 'a'", "array of tables"),
        ("[[sources.mirror]]\nname = 'a'", "sources.mirror[0].url must be given"),
        ("[[sources.mirror]]\nname = 'a'\nurl = 'u'\nlayout = 'md5'", "path, sha256"),
        ("[[sources.mirror]]\nname = 'a'\nurl = 'u'\n" * 2, "two mirrors have the same name"),
        ("[release]\nhold = 7", "release.hold cannot be 7"),
        ("[release]\nhold = '7 days'", "release.hold cannot be '7 days'"),
        ("[release]\nhold = 1979-05-27", "release.hold cannot be"),
        ("[release]\ncopies = 0", "above 0"),
        ("[release]\ncopies = 2.5", "whole number"),
        ("[release]\ncopies = true", "a number is needed"),
        ("[release]\nmax_skeleton = 5", "between 0 and 1"),
        ("[release]\nmax_skeleton = nan", "above 0"),
        ('[release]\nmax_skeleton = "500%"', "between 0 and 1"),
        ('[release]\nmax_skeleton = "much"', "0.05 or 5%"),
        ("[recipes]\nmemory_bytes = inf", "above 0"),
        ("[recipes]\nmemory_bytes = '0GB'", "above 0"),
        ("[recipes]\nmemory_bytes = 'much'", "memory_bytes cannot be 'much'"),
        ("[recipes]\ntimeout_s = -1", "above 0"),
        ("[recipes]\nthreads = 'four'", "recipes.threads cannot be 'four'"),
        ("[recipes]\npaths = ['code']", "an absolute path"),
        ("[recipes]\nmodules = [1]", "a text is needed"),
        ("[release", "not a readable TOML file"),
        ("a = 1\na = 2", "not a readable TOML file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake is refused with the file, the key and what would be right; one full stop."""
    message = refused(tmp_path, text)
    assert said in message
    assert str(tmp_path / "config.toml") in message
    assert not message.endswith("..")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder, bytes that are no text and a path below a file are errors of ours."""
    (tmp_path / "latin").write_bytes(b'# Gr\xf6\xdfe\n[release]\nhold = "1d"')
    for path in (tmp_path, tmp_path / "latin", tmp_path / "latin" / "config.toml"):
        with pytest.raises(InvalidInputError) as caught:
            load_config(path, {})
        assert caught.value.kind == "invalid-config"


def test_a_file_without_permission(tmp_path: Path) -> None:
    """A configuration that the caller may not read is an AccessError that names it."""
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(0)
    said = tmp_path / "said"
    said.touch()
    said.chmod(0o666)
    open_to_all(tmp_path)
    process = start(load_config_as_nobody, str(path), str(said))
    process.join(60)
    assert said.read_text().startswith(f"access-denied: you cannot read {path}")


def test_variables_override(tmp_path: Path) -> None:
    """Variables reach every table, stores with dashes and dots too, and win over the file."""
    config = load(
        tmp_path,
        FULL,
        RECALLFS_RELEASE__HOLD="3d",
        RECALLFS_RELEASE__COPIES="5",
        RECALLFS_RECIPES__MODULES="a.b, c",
        RECALLFS_RECIPES__MEMORY_BYTES="1GB",
        RECALLFS_STORES__ANALYSIS__RECALL_MISSING="yes",
        RECALLFS_STORES__MY_LAB_2__VAULT="/elsewhere",
        RECALLFS_STORES__NEW__ROOT="/new",
        RECALLFS_CONFIG="/ignored",
        OTHER="x",
    )
    assert config.release.hold == timedelta(days=3)
    assert config.release.grace == timedelta(days=2)
    assert config.release.copies == 5
    assert config.recipes.modules == ("a.b", "c")
    assert config.recipes.memory_bytes == 10**9
    assert config.stores["analysis"].recall_missing is True
    assert config.stores["my-lab.2"].vault == Path("/elsewhere")
    assert config.stores["new"].root == Path("/new")


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("RECALLFS_RELESE__HOLD", "1d", "unknown key 'relese'; did you mean 'release'?"),
        ("RECALLFS_RELEASE__HOLT", "1d", "unknown key 'release.holt'; did you mean 'hold'?"),
        ("RECALLFS_RELEASE__HOLD", "x", "release.hold cannot be 'x'"),
        ("RECALLFS_RELEASE", "x", "release must be a table"),
        ("RECALLFS_FOO", "1", "unknown key 'foo'"),
        ("RECALLFS_", "1", "unknown key ''"),
        ("RECALLFS_RELEASE__HOLD__DAYS", "1", "names no setting"),
        ("RECALLFS_SOURCES__MIRROR__0__URL", "u", "names no setting"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, text: str, said: str) -> None:
    """A mistake in the environment is not blamed on the file."""
    message = refused(tmp_path, FULL, **{variable: text})
    assert said in message
    assert variable in message
    assert "config.toml" not in message


def test_unknown_store_names_the_nearest(tmp_path: Path) -> None:
    """A misspelt store is an error of its own kind that names the likely one."""
    with pytest.raises(InvalidInputError, match="did you mean 'analysis'") as caught:
        load(tmp_path, FULL).store_settings("anlysis")
    assert caught.value.kind == "unknown-store"


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RECALLFS_CONFIG names it, relative to the working folder too; else the platform does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECALLFS_CONFIG", "here.toml")
    assert config_path() == tmp_path / "here.toml"
    monkeypatch.delenv("RECALLFS_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = config_path()
    assert path.is_relative_to(tmp_path)
    assert path.parts[-2:] == ("recallfs", "config.toml")


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        "",
        "stores.old.root = '/old' # dotted\n",
        "[stores]\n[stores.old]\nroot = '/old'\n[release]\nhold = '1d' # why\n",
        "[stores.old]\nroot = '/old'\n[release]\nhold = '1d' # why\n[stores.other]\nroot = '/b'\n",
        "stores = { old = { root = '/old' } }\n[release]\nhold = '1d'\n",
        "[stores]\nold = { root = '/old' }\n# end\n[release]\ncopies = 3\n",
        "[stores.old]\nroot = '/old' # no line end",
        "# only a comment",
        "[release]\r\nhold = '1d'\r\n",
    ],
    ids=range(10),
)
def test_registering_keeps_the_rest(tmp_path: Path, text: str) -> None:
    """A new store is added however the file is written; every old line and value stays."""
    path = tmp_path / "config.toml"
    path.write_text(text, newline="")
    before = load_config(path, {})
    assert register_store("new.one-2", Path("/new store/ω"), path) is True
    after = load_config(path, {})
    assert after.stores == {
        **before.stores,
        "new.one-2": StoreSettings(root=Path("/new store/ω")),
    }
    assert (after.recipes, after.mirrors, after.release) == (
        before.recipes,
        before.mirrors,
        before.release,
    )
    with path.open(newline="") as file:
        written = file.read()
    for line in text.splitlines():
        comment = line.partition("#")[2]
        assert comment in written
    content = path.read_bytes()
    assert register_store("new.one-2", Path("/new store/ω"), path) is False
    assert path.read_bytes() == content


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    """A name that belongs to another folder is a conflict, and the file stays as it is."""
    path = tmp_path / "config.toml"
    path.write_text(FULL)
    with pytest.raises(ConflictError, match="choose another name"):
        register_store("analysis", tmp_path / "else", path)
    assert path.read_text() == FULL


@pytest.mark.parametrize("name", ["", "a b", "../x", "-a", "a/b", "ω", "x" * 65])
def test_names_that_no_store_can_have(tmp_path: Path, name: str) -> None:
    """A name that an address could not hold is refused before anything is written."""
    with pytest.raises(InvalidInputError):
        register_store(name, tmp_path, tmp_path / "config.toml")
    assert not (tmp_path / "config.toml").exists()


def test_a_symlink_to_the_same_root_is_the_same_store(tmp_path: Path) -> None:
    """A root that was written down by another name is not taken for another folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = tmp_path / "config.toml"
    path.write_text(f"[stores.lab]\nroot = '{tmp_path / 'link'}'\n")
    assert register_store("lab", tmp_path / "real", path) is False


def test_a_symlinked_shared_file_stays_so(tmp_path: Path) -> None:
    """A configuration behind a symlink is changed where it is, and others can read it as before."""
    (tmp_path / "shared").mkdir()
    real = tmp_path / "shared" / "recall.toml"
    real.write_text("# ours\n")
    real.chmod(0o644)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    register_store("lab", tmp_path / "lab", link)
    assert link.is_symlink()
    assert "# ours" in real.read_text()
    assert list(load_config(real, {}).stores) == ["lab"]
    assert real.stat().st_mode & 0o777 == 0o644


def test_a_new_file_is_private(tmp_path: Path) -> None:
    """A configuration that we make can hold passwords, so nobody else reads it."""
    path = tmp_path / "new" / "config.toml"
    register_store("lab", tmp_path / "lab", path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_processes_register_at_once(tmp_path: Path) -> None:
    """Neither loses the other's stores."""
    path = tmp_path / "config.toml"
    processes = [start(register_many, str(path), prefix) for prefix in "ab"]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert set(load_config(path, {}).stores) == {f"{p}{i}" for p in "ab" for i in range(8)}
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".new-")] == []
