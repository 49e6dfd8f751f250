"""``recall show``."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from recallfs.catalog import attempts, records
from recallfs.catalog.attempts import Failure
from recallfs.catalog.sidecar import Record, encode
from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_address
from recallfs.cli.output import count_files, print_json, print_table, say
from recallfs.digest.hdf5 import ContentDigest
from recallfs.environment.interpreter import label_of
from recallfs.errors import InvalidInputError
from recallfs.partial.opening import Parts
from recallfs.release.copies import Known, known_copies
from recallfs.release.failed import expected_reason
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import stores_in_reach
from recallfs.skeleton.contents import load_contents
from recallfs.values import Derivation, Level, Proof, State, format_size, now_utc

_LOG_LINES = 15
_NAMED = 3
_LOOKED_AT = 20
_COUNTED = 1000


@click.command(name="show")
@click.argument("address", metavar="URL", shell_complete=complete_address)
@click.option("--objects", is_flag=True, help="Show the digests of its HDF5 objects, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(address: str, objects: bool, as_json: bool) -> None:
    """Show all that is known of a file: digests, derivation, proofs, copies, recalls.

    Example: recall show recall://analysis/sub-1/lfp.nwb
    """
    stores = stores_in_reach()
    store, path = stores.resolve(address)
    _refuse_folder(store, path)
    entry = records.known_entry(store, path)
    state = settle(store, entry)
    record = records.load(store, entry.id)
    recalls = store.catalog.recalls(entry.id)
    contents = load_contents(store, entry) if objects else None
    failure = attempts.load(store, entry.id)
    if failure is not None:
        patterns = stores.config.expected_failures
        expected = expected_reason(patterns, failure.kind, failure.message, failure.log)
        failure = dataclasses.replace(failure, expected=expected)
    here = None if state is State.RESIDENT else Parts(stores, store, entry).here()
    if as_json:
        body = json.loads(encode(record))["body"]
        body.pop("blocks")
        body.setdefault("residual", None)
        body["dandi_etag"] = record.dandi_etag
        body["parts"] = here and dataclasses.asdict(here)
        body["failure"] = failure and failure.to_json()
        body["copies"] = [item.to_json() for item in known_copies(stores, store, record)]
        body["objects"] = contents and {
            path: {**found.to_json(), "digest": found.digest}
            for path, found in contents.objects.items()
        }
        print_json({**body, "url": store.url(path), "state": state.value, "recalls": recalls})
        return
    say(f"{store.url(entry.path)}")
    facts = _facts(store, record, state.value)
    if here is not None:
        facts.insert(1, ("parts here", f"{format_size(here.size_bytes)}; {here.check}"))
    print_table(["", ""], [[name, value] for name, value in facts])
    _print_proofs(record)
    if failure is not None:
        _print_failure(store, failure)
    _print_copies(known_copies(stores, store, record))
    if recalls:
        print_table(
            ["recalled", "by", "source", "seconds>", "level"],
            [
                [r["at"][:19], r["who"], r["source"], f"{r['seconds']:.2f}", r["level"]]
                for r in recalls[:10]
            ],
            title="\nrecalls",
        )
    if objects:
        _print_objects(contents)


def _refuse_folder(store: Store, path: str) -> None:
    """Say of a folder which files are on record below it, and what made them."""
    if store.catalog.entry_at(path) is not None:
        return
    below = list(itertools.islice(store.catalog.entries_below(path), _COUNTED))
    if not below:
        return
    found = [records.load(store, entry.id).derivation(now_utc()) for entry in below[:_LOOKED_AT]]
    recipes = {f"{each.recipe} {each.version}" for each in found if each is not None}
    made = f", made by {', '.join(sorted(recipes))}" if recipes else ""
    names = ", ".join(store.url(entry.path) for entry in below[:_NAMED])
    more = ", ..." if len(below) > _NAMED else ""
    count = count_files(len(below)) + (" or more" if len(below) == _COUNTED else "")
    raise InvalidInputError(
        f"{store.url(path)} is a folder with {count} on record below it{made}: "
        f"{names}{more} (`recall show` tells of each).",
        kind="is-a-folder",
        details={"path": path, "recipes": sorted(recipes)},
    )


def _print_objects(contents: ContentDigest | None) -> None:
    if contents is None:
        say("No digests of its objects are kept; they are when an HDF5 file is proved.")
        return
    print_table(
        ["object", "kind", "type", "shape", "digest"],
        [
            [
                path,
                found.kind,
                found.type or found.target.replace("\0", ":"),
                "" if found.shape is None else str(found.shape),
                found.digest[:16],
            ]
            for path, found in contents.objects.items()
        ],
        title=f"\nobjects ({contents})",
    )


def _facts(store: Store, record: Record, state: str) -> list[tuple[str, str]]:
    entry = record.entry
    facts = [
        ("state", state),
        ("path", str(store.root / entry.path)),
        ("size", f"{format_size(entry.size_bytes)} ({entry.size_bytes} bytes)"),
        ("sha256", entry.sha256 or "not known before it was here"),
        ("sha1", entry.sha1 or "not known before it was here"),
        *([("dandi-etag", record.dandi_etag)] if record.dandi_etag else []),
        ("recorded", entry.created_at[:19]),
        ("entry", entry.id),
    ]
    facts += [
        (
            "came back as",
            f"{item.level.value}, {format_size(item.size_bytes)}, sha256 {item.sha256} "
            f"(since {item.recorded_at[:19]})",
        )
        for item in record.incarnations
        if item.level is not Level.EXACT
    ]
    derivation = record.derivation(now_utc())
    if derivation is not None:
        facts += _how_made(store, record, derivation)
    facts += _what_is_kept(record)
    if record.release is not None:
        release = record.release
        facts.append(("release", f"{release.stage} {release.at[:19]} by {release.by}"))
        facts.append(("rests on", release.evidence))
        if release.stage == "trashed":
            facts.append(("in the trash until", release.purge_after[:19]))
    if record.is_pinned:
        facts.append(("pinned", record.pins[-1].reason or "yes"))
    return facts


def _how_made(store: Store, record: Record, derivation: Derivation) -> list[tuple[str, str]]:
    """Tell which recipe made it, in what, and from what."""
    parameters = ", ".join(f"{k}={v!r}" for k, v in derivation.parameters.items())
    facts = [
        ("recipe", f"{derivation.recipe} {derivation.version}{_took(derivation)}"),
        ("parameters", parameters or "none"),
        *_cost(derivation),
        ("seeded", "no" if derivation.seed is None else "yes"),
        ("key", derivation.key),
        *_code(store, derivation),
    ]
    proofs = [p for p in record.valid_proofs(now_utc()) if p.derivation_id == derivation.id]
    ran = proofs[0].environment_id if proofs else derivation.environment_id
    facts.append(("environment", label_of(ran, records.environment(store, ran))))
    facts += [
        (f"input {item.name}", f"{store.url(item.path)} (sha256 {item.sha256[:16]}…)")
        for item in derivation.inputs
    ]
    facts += [
        (f"declared {item.name}", f"blake3 {item.digest[:16]}…") for item in derivation.declared
    ]
    log = store.log_path(derivation.id)
    if log.exists():
        facts.append(("log of its last run", str(log)))
    return facts


def _took(derivation: Derivation) -> str:
    """Say how long its run took; of what was adopted, that is not known."""
    return f" ({derivation.seconds:.1f} s)" if derivation.seconds else ""


def _what_is_kept(record: Record) -> list[tuple[str, str]]:
    """Tell what is kept of it for the day when it is recomputed."""
    return [
        (
            name,
            f"{format_size(kept.stored_bytes)} kept "
            f"({kept.stored_bytes / max(1, record.entry.size_bytes):.2%})",
        )
        for name, kept in (("skeleton", record.skeleton), ("residual", record.residual))
        if kept is not None
    ]


def _level(proof: Proof) -> str:
    if proof.level is not Level.TOLERANCE:
        return str(proof.level.value)
    return f"{proof.level.value} (rtol {proof.rtol:g}, atol {proof.atol:g})"


def _code(store: Store, derivation: Derivation) -> list[tuple[str, str]]:
    """Tell which code it was."""
    facts = [("source", derivation.source_digest)]
    code = derivation.code
    if code is not None:
        state = {True: "with changes", False: "unchanged", None: "not compared"}[code.dirty]
        facts.append(("commit", f"{code.commit or 'none yet'}, {state}"))
    if code is not None and code.diff:
        cut = "" if code.is_whole else " (cut off: too large)"
        facts.append(("changes", f"{store.code_path(code.diff)}{cut}"))
    return facts


def _cost(derivation: Derivation) -> list[tuple[str, str]]:
    if derivation.cpu_seconds is None or derivation.peak_memory_bytes is None:
        return []
    peak = format_size(derivation.peak_memory_bytes)
    return [
        (
            "cost",
            f"{derivation.seconds:.1f} s, {derivation.cpu_seconds:.1f} s of CPU, "
            f"{peak} of memory at most",
        )
    ]


def _print_proofs(record: Record) -> None:
    valid: set[Any] = {proof.id for proof in record.valid_proofs(now_utc())}
    if record.proofs:
        print_table(
            ["proved", "by", "level", "how", "hidden by", "seconds>", "valid until", "counts"],
            [
                [
                    proof.made_at[:19],
                    proof.made_by,
                    _level(proof),
                    proof.method,
                    proof.hidden_by,
                    f"{proof.seconds:.1f}",
                    proof.valid_until[:10],
                    "yes" if proof.id in valid else "no",
                ]
                for proof in record.proofs
            ],
            title="\nproofs",
        )
    why = {one.proof_id: (one.made_at, one.made_by, one.reason) for one in record.revocations}
    gone = [
        (proof, *why.get(proof.id, (proof.valid_until, "", "it ended")))
        for proof in record.proofs
        if proof.id not in valid
    ]
    if gone:
        print_table(
            ["proved", "no longer counts since", "revoked by", "why"],
            [[proof.made_at[:19], at[:19], who, reason] for proof, at, who, reason in gone],
            title="\nproofs that do not count",
        )


def _print_failure(store: Store, failure: Failure) -> None:
    """Print why the file could not be proved when that was last tried."""
    environment = records.environment(store, failure.environment_id)
    facts = [
        ("tried", f"{failure.at[:19]} by {failure.by}"),
        ("recipe", f"{failure.recipe} {failure.version}"),
        ("source", failure.source_digest),
        ("environment", label_of(failure.environment_id, environment)),
        ("kind", failure.kind),
        ("expected", failure.expected),
        ("why", failure.message),
        ("exception", failure.exception),
        *(("not written", name) for name in failure.missing),
    ]
    print_table(["", ""], [[key, value] for key, value in facts if value], title="\nlast failure")
    if failure.objects:
        print_table(
            ["object", "what differs", "pieces>", "values>", "by at most>"],
            [_object_row(one) for one in failure.objects],
            title="\nobjects that differ",
        )
    if failure.log.strip():
        say("")
        say("end of the recipe's log")
        for line in failure.log.rstrip().splitlines()[-_LOG_LINES:]:
            say(f"  {line}")


def _object_row(one: Mapping[str, Any]) -> list[str]:
    values = one.get("values") or {}
    count, largest = values.get("count"), values.get("largest_absolute")
    return [
        str(one.get("path", "")),
        str(one.get("note") or one.get("reason", "")),
        f"{one.get('pieces', '-')} of {one.get('of', '-')}",
        "-" if count is None else f"{count:,} of {values.get('total', 0):,}",
        "-" if largest is None else f"{largest:.3g}",
    ]


def _print_copies(copies: Sequence[Known]) -> None:
    if not copies:
        return
    print_table(
        ["verified", "source", "failure domain", "address", "counts for a release"],
        [
            [
                item.copy.verified_at[:19] or "never",
                item.copy.source,
                item.copy.failure_domain,
                item.copy.location,
                f"no: {item.why_not}" if item.why_not else "yes, when it is read again then",
            ]
            for item in copies
        ],
        title="\ncopies",
    )
