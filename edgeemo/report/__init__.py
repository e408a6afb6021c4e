"""Results as data, and their tables for the terminal and for Markdown.

`result.py` has one frozen dataclass per kind of result, `facts.py` the parts that several kinds share; `decode.py`
reads JSON into them. `sections/` has a module per kind that makes its `Page` of tables and sentences; `table.py`
renders both. `files.py` reads and writes result files; the commands call `render.py`: `show(result)` prints one.
"""
