"""Results as data, and the same tables of them for the terminal and for Markdown.

`result.py` has one frozen dataclass per kind of result, `facts.py` what several of them hold, `decode.py` reads JSON
back into them. `sections/` has a module per kind that makes its `Page`, of tables and sentences; `table.py` renders
both. `files.py` reads and writes result files, and `render.py` is what the commands call: `show(result)` prints one.
"""
