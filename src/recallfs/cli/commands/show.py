"""``recall show``."""

from __future__ import annotations

import json
from typing import Any

import click

from recallfs.catalog import records
from recallfs.catalog.sidecar import Record, encode
from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, print_table, say
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import format_size, now_utc


@click.command(name="show")
@click.argument("address", metavar="URL", shell_complete=complete_address)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(address: str, as_json: bool) -> None:
    """Show all that is known of a file: digests, derivation, proofs, copies, recalls.

    Example: recall show recall://analysis/sub-1/lfp.nwb
    """
    stores = stores_in_reach()
    store, path = stores.resolve(address)
    entry = records.known_entry(store, path)
    state = settle(store, entry)
    record = records.load(store, entry.id)
    recalls = store.catalog.recalls(entry.id)
    if as_json:
        body = json.loads(encode(record))["body"]
        body.pop("blocks")
        print_json(
            {
                "residual": None,
                **body,
                "url": store.url(path),
                "state": state.value,
                "recalls": recalls,
            }
        )
        return
    say(f"{store.url(entry.path)}")
    print_table(["", ""], [[name, value] for name, value in _facts(store, record, state.value)])
    _print_evidence(record)
    if recalls:
        print_table(
            ["recalled", "by", "source", "seconds>", "level"],
            [
                [r["at"][:19], r["who"], r["source"], f"{r['seconds']:.2f}", r["level"]]
                for r in recalls[:10]
            ],
            title="\nrecalls",
        )


def _facts(store: Store, record: Record, state: str) -> list[tuple[str, str]]:
    entry = record.entry
    facts = [
        ("state", state),
        ("path", str(store.root / entry.path)),
        ("size", f"{format_size(entry.size_bytes)} ({entry.size_bytes} bytes)"),
        ("sha256", entry.sha256),
        ("sha1", entry.sha1),
        ("recorded", entry.created_at[:19]),
        ("entry", entry.id),
    ]
    derivation = record.derivation(now_utc())
    if derivation is not None:
        parameters = ", ".join(f"{k}={v!r}" for k, v in derivation.parameters.items())
        facts += [
            ("recipe", f"{derivation.recipe} {derivation.version} ({derivation.seconds:.1f} s)"),
            ("parameters", parameters or "none"),
            ("seeded", "no" if derivation.seed is None else "yes"),
            ("key", derivation.key),
        ]
        facts += [
            (f"input {item.name}", f"{store.url(item.path)} (sha256 {item.sha256[:16]}…)")
            for item in derivation.inputs
        ]
        log = store.log_path(derivation.id)
        if log.exists():
            facts.append(("log of its last run", str(log)))
    if record.skeleton is not None:
        share = record.skeleton.stored_bytes / max(1, entry.size_bytes)
        facts.append(
            ("skeleton", f"{format_size(record.skeleton.stored_bytes)} kept ({share:.2%})")
        )
    if record.residual is not None:
        share = record.residual.stored_bytes / max(1, entry.size_bytes)
        facts.append(
            ("residual", f"{format_size(record.residual.stored_bytes)} kept ({share:.2%})")
        )
    if record.release is not None:
        release = record.release
        facts.append(("release", f"{release.stage} {release.at[:19]} by {release.by}"))
        facts.append(("rests on", release.evidence))
        if release.stage == "trashed":
            facts.append(("in the trash until", release.purge_after[:19]))
    if record.is_pinned:
        facts.append(("pinned", record.pins[-1].reason or "yes"))
    return facts


def _print_evidence(record: Record) -> None:
    valid: set[Any] = {proof.id for proof in record.valid_proofs(now_utc())}
    if record.proofs:
        print_table(
            ["proved", "by", "level", "how", "hidden by", "seconds>", "valid until", "counts"],
            [
                [
                    proof.made_at[:19],
                    proof.made_by,
                    proof.level.value,
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
    if record.copies:
        print_table(
            ["verified", "source", "failure domain", "address"],
            [[c.verified_at[:19], c.source, c.failure_domain, c.location] for c in record.copies],
            title="\ncopies",
        )
