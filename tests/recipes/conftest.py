"""What tests of recipes share: a module of recipes in a folder, and jobs that run them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallfs.recipes.job import Job


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Return a function that writes a module of recipes and makes a job for one named 'made'."""

    def make(body: str, *, folder: Path | None = None, **fields: Any) -> Job:
        base = folder or tmp_path
        code = base / "code"
        code.mkdir(exist_ok=True)
        source = "from recallfs.recipes.model import recipe\n" + textwrap.dedent(body)
        (code / "made_recipes.py").write_text(source, "utf-8")
        scratch = base / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        values: dict[str, Any] = {
            "recipe": "made",
            "scratch": scratch,
            "outputs": {"output": scratch / "out.bin"},
            "modules": ("made_recipes",),
            "paths": (code,),
        }
        return Job(**{**values, **fields})

    return make
