"""``recall completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from recallfs.cli.output import print_json

SHELLS = ("bash", "zsh", "fish")


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(shell: str, as_json: bool) -> None:
    """Print what makes a shell complete commands, options, stores and files.

    For bash, add `eval "$(recall completion bash)"` to ~/.bashrc; for zsh the same with `zsh` to
    ~/.zshrc; for fish, `recall completion fish | source` to ~/.config/fish/config.fish.

    Example: recall completion bash
    """
    from recallfs.cli.app import program

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows the three
    # Both programs ask in the same way.
    scripts = [
        kind(program, {}, name, "_RECALL_COMPLETE").source() for name in ("recall", "recallfs")
    ]
    if as_json:
        print_json({"shell": shell, "script": "\n".join(scripts)})
    else:
        click.echo("\n".join(scripts))
