"""The pages of docs/ and the README: short, current, without broken links, and buildable as a site."""

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import cli_reference
import fault_table
import overview
import pytest
import site_hooks
from click.testing import CliRunner

from edgeemo import stages
from edgeemo.cli import main
from edgeemo.data.layouts.folder import SPLIT_SYNONYMS
from edgeemo.errors import EdgeemoError
from edgeemo.labels import SYNONYMS

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, ROOT / "benchmarks" / "README.md"]
FENCED = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def prose(page):
    """The text of a page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def headings(page):
    return [title.replace("`", "") for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)]


def github_anchor(title):
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def mkdocs_anchor(title):
    """As Python-Markdown makes it."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def links():
    """Each relative link of the pages: the page, and what it points to."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if "://" not in target:
                yield pytest.param(page, target, id=f"{page.name} {target}")


def test_the_readme_is_short():
    """At most 120 lines; everything else is in docs/."""
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_links_resolve(page, target):
    """The file is there, and the heading in it, on GitHub and on the site alike."""
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    assert file.exists()
    assert file.is_relative_to(ROOT)
    if anchor:
        for make in (github_anchor, mkdocs_anchor):
            assert [make(title) for title in headings(file)].count(anchor) == 1


def test_every_page_is_reached():
    """From the overview, from the README and in the navigation of the site."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS:
        assert re.search(rf"^ +- .+: {page.name}$", navigation, re.MULTILINE), page.name
        if page.name != "index.md":
            assert f"]({page.name}" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), page.name
            assert f"](docs/{page.name}" in README, page.name


def test_the_command_line_reference_is_current():
    """docs/cli.md is what `make readme` writes from the stages."""
    assert cli_reference.PAGE.read_text(encoding="utf-8") == cli_reference.page()


@pytest.mark.parametrize("stage", stages.STAGES, ids=lambda stage: stage.command)
def test_the_command_line_reference_is_complete(stage):
    """Every option that --help-all shows is in the section of its command."""
    page = cli_reference.page()
    section = page.partition(f"\n## {stage.command}\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(--[\w-]+)`(.*) \|$", section, re.MULTILINE))
    shown = CliRunner().invoke(main, [*stage.command.split(), "--help-all"])
    found = re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown.output, re.MULTILINE)
    of_every_command = {"--help", "--help-all", "--quiet"}
    assert set(found) - of_every_command == set(rows)
    assert all(flag in page.partition("\n## ")[0] for flag in of_every_command)


def test_every_exit_code_is_explained():
    """Of each class of errors, and those of success, an interruption and a closed pipe."""
    codes = {one.exit_code for one in (EdgeemoError, *EdgeemoError.__subclasses__())} | {0, 130, 141}
    section = cli_reference.page().partition("## Exit codes")[2]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == sorted(codes)


def test_the_sample_prediction_is_real():
    """What README shows under `edgeemo predict --sample` is what it prints."""
    shown = CliRunner().invoke(main, ["predict", "--sample"])
    assert shown.exit_code == 0
    assert f"```text\n{shown.output}```" in README


def test_the_plot_is_drawn_from_committed_results():
    """Its accuracies and latencies are those of the table below it."""
    assert overview.PLOT.read_bytes().startswith(b"\x89PNG")
    assert f"]({overview.PLOT.relative_to(ROOT)})" in README
    for name, one in overview.points()["models"].items():
        accuracy, low, high = one["accuracy"]
        (row,) = re.findall(rf"^\| {name} \| .*$", README, re.MULTILINE)
        assert f"| {accuracy:.2f} % ({low:.2f} to {high:.2f}) |" in row
        assert f"| {one['ms']:.3f} / " in row
        assert f"| {one['ms'] / one['float_ms']:.2f} |" in row


def test_the_site_builds(tmp_path):
    """Strictly: no broken link or anchor, and nothing is loaded from another host."""
    pytest.importorskip("material", reason="MkDocs Material is not installed; make docs installs it")
    # Not --quiet, with which MkDocs counts no warnings.
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in pages} == {*(page.stem for page in DOCS), "404"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:link|script|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>", text) == []


def test_the_site_reads_what_github_does():
    """Steps keep what belongs to them, code is left alone, and a link out of docs/ becomes a path."""
    page = "1. step\n\n   ```bash\n   a\n   ```\n\n2. [log](../LICENSE) ([how](../Makefile))\n\n```python\n   b\n```\n"
    shown = site_hooks.on_page_markdown(page)
    assert "\n    ```bash\n    a\n    ```\n" in shown
    assert "```python\n   b\n```" in shown
    assert "2. log (`LICENSE`) (how: `Makefile`)" in shown


def test_the_page_on_training_lists_every_synonym():
    """Of labels and of splits."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for label, others in SYNONYMS.items():
        assert f"| {label} | {', '.join(others)} |" in page
    for name in (name for names in SPLIT_SYNONYMS.values() for name in names):
        assert f"`{name}`" in page.replace("PublicTest", "publictest").replace("PrivateTest", "privatetest")


def test_the_page_on_faults_is_current_and_names_tests_that_exist():
    """As `make faults` writes it."""
    faults = fault_table.read_faults()
    assert fault_table.find_missing(faults) == []
    assert fault_table.PAGE.read_text(encoding="utf-8") == fault_table.render(faults)
