"""The commit hooks ask for what `make lint` asks for, and for short subjects."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / ".pre-commit-config.yaml"


def test_hooks_run_what_lint_runs():
    """The same commands in the same order."""
    hooks = re.findall(r"^ +entry: (.+)\n +language: system$", CONFIG.read_text(encoding="utf-8"), re.MULTILINE)
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == re.findall(r"\$\(BIN\)/(.+)", lint)


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("a" * 72, True),
        ("a" * 73, False),
        ("ü" * 72, True),
        ("ü" * 73, False),
        ("Short\n\n" + "a" * 100, True),
        ("fixup! " + "a" * 72, True),
    ],
    ids=["72", "73", "72 of two bytes", "73 of two bytes", "a long body", "fixup"],
)
def test_subjects_have_at_most_72_characters(message, passes, tmp_path, monkeypatch):
    """The hook counts characters of the first line."""
    pytest.importorskip("pre_commit", reason="pip install pre-commit")
    if not shutil.which("git"):
        pytest.skip("git is not here")
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    shutil.copy(CONFIG, repository)
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    (tmp_path / "message").write_text(message + "\n", encoding="utf-8")
    hook = ["run", "--hook-stage", "commit-msg", "--commit-msg-filename", str(tmp_path / "message")]
    command = [sys.executable, "-m", "pre_commit", *hook]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
    assert "subject of at most 72 characters" in done.stdout
