"""Commands that were killed at random moments and given again end in the numbers of one that was left alone."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills import KILLED, content, differences

#: Kills of each command in the suite; `python -m tests.kills` does ten.
FEW = 2


def kill(*commands: str, kills: int) -> None:
    seed = random.randrange(2**32)
    words = [sys.executable, "-m", "tests.kills", *commands, "--kills", str(kills), "--seed", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == len(commands), done.stdout
    assert all(line.endswith(": the same numbers") for line in lines), done.stdout
    assert all(f" {kills} kills, " in line for line in lines), done.stdout


def test_a_few_kills() -> None:
    kill("infer", "image-flow train", kills=FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", KILLED)
def test_ten_kills(command: str) -> None:
    kill(command, kills=10)


def test_a_difference_is_found(tmp_path: Path) -> None:
    for name, mean in (("whole", 0.25), ("broken", 0.2500001)):
        (tmp_path / name).mkdir()
        found = {"mean": mean, "seconds": len(name)}
        (tmp_path / name / "summary.json").write_text(json.dumps(found))
    (tmp_path / "broken/.tmp-host-1-0-last.ckpt").touch()
    assert list(differences(tmp_path / "whole", tmp_path / "broken")) == [
        ".tmp-host-1-0-last.ckpt: left over",
        "summary.json: differs",
    ]
    assert content(tmp_path / "whole/summary.json", tmp_path / "whole") == {"mean": 0.25}
