"""The report stage: result files → Markdown, printed or written."""

from __future__ import annotations

from edgeemo import options
from edgeemo.report import render
from edgeemo.stages import Report


def run(config: Report) -> str:
    """Return the Markdown of the result files, or the path of the file that it was written to."""
    options.check(config)
    if not config.out:
        return render.render_files(config.results).rstrip()
    render.write_files(config.out, config.results)
    return str(config.out)
