"""Options of the commands that run recipes again and hold what they give against the original."""

from __future__ import annotations

import click

from recallfs.release.proof import HIDING
from recallfs.values import Level

hide_option = click.option(
    "--hide",
    "hiding",
    type=click.Choice(HIDING),
    default="namespace",
    show_default=True,
    help="How the original is put out of the recipe's sight.",
)
"""How the original is hidden, as ``hiding``."""

level_option = click.option(
    "--level",
    type=click.Choice([level.value for level in Level]),
    help="Lowest level to be content with; by default as the store's settings say, else exact.",
)
"""The lowest level, by its name or None."""
