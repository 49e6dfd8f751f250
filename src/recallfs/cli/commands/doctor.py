"""``recall doctor``."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.text import Text

from recallfs.cli.completion import complete_store
from recallfs.cli.output import console, count_bar, print_json, say
from recallfs.doctor.examination import Outcome, Report, examine
from recallfs.doctor.faults import FAULTS, Severity
from recallfs.values import display_name

_SHOWN = 5
_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@click.command(name="doctor")
@click.argument("names", metavar="[STORE...]", shell_complete=complete_store, nargs=-1)
@click.option("--fix", is_flag=True, help="Mend what can be mended safely.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(names: tuple[str, ...], fix: bool, as_json: bool) -> int:
    """Look for what is wrong with stores, vaults, mirrors and this computer.

    Nothing is changed without `--fix`; with it, nothing is deleted that may be the last copy of
    something. Exit code 1 if errors are left; warnings are risks and do not count.

    Example: recall doctor --fix
    """
    with count_bar("looking", quiet=as_json) as progress:
        report = examine(names, fix=fix, progress=progress)
    if as_json:
        print_json(
            {
                "healthy": report.is_healthy,
                "stores": report.stores,
                "findings": [outcome.to_json() for outcome in report.outcomes],
            }
        )
    else:
        _print(report)
    return 0 if report.is_healthy else 1


def _print(report: Report) -> None:
    groups: dict[str, list[Outcome]] = {}
    for fault_id in FAULTS:
        found = [outcome for outcome in report.outcomes if outcome.finding.id == fault_id]
        if found:
            groups[fault_id] = found
    order = list(Severity)
    for fault_id in sorted(groups, key=lambda name: order.index(FAULTS[name].severity)):
        _print_group(fault_id, groups[fault_id])
    counts = [
        f"{len(left)} {severity.value}{'' if len(left) == 1 else 's'}"
        for severity in Severity
        if (left := report.left(severity))
    ]
    mended = sum(not outcome.is_left for outcome in report.outcomes)
    told = f"{mended} mended, " if mended else ""
    say(f"{told}{', '.join(counts) or 'nothing'} left." if groups else "Nothing is wrong.")
    if any(outcome.is_left and outcome.finding.mend for outcome in report.outcomes):
        say("`recall doctor --fix` mends those marked with *.")


def _print_group(fault_id: str, outcomes: Sequence[Outcome]) -> None:
    fault = FAULTS[fault_id]
    head = Text(fault.severity.value, style=_STYLES[fault.severity])
    head.append(f" {fault_id}", style="bold")
    head.append(f": {fault.meaning}", style="default")
    console().print(head, soft_wrap=True)
    for outcome in outcomes[:_SHOWN]:
        finding = outcome.finding
        if outcome.done is not None:
            mark, tail = "+", f" Mended: {outcome.done}."
        elif outcome.failure is not None:
            mark, tail = "!", f" Not mended: {outcome.failure}"
        else:
            mark, tail = ("*" if finding.mend else "-"), ""
        line = Text(display_name(f"  {mark} {finding.place}: {finding.problem}{tail}"))
        console().print(line, soft_wrap=True)
    if len(outcomes) > _SHOWN:
        say(f"    and {len(outcomes) - _SHOWN:,} more; --json lists all.")
    if any(outcome.is_left for outcome in outcomes):
        say(f"    {fault.remedy}")
    say("")
