"""The tutorial's commands run as printed, one after the other, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = [Path("docs/start.md")]


@pytest.mark.real
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_command_of_the_tutorial(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks, "a tutorial without commands teaches nothing"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PRESS": str(Path("examples/press").resolve()),
        "LANG": "C.UTF-8",
    }
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert '"machine_wear"' in (tmp_path / "story.json").read_text(encoding="utf-8")
    assert (tmp_path / "again.json").stat().st_size > 1000
