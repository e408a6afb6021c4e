"""Options of a command in a TOML file: the names of the command line, with - or _, each with a value of its type.

    source = "rtsp://camera.local/stream"
    detect-every = 5
    mqtt = "env:BROKER"             # the value of an environment variable, so that no file holds a password

Relative paths are relative to the file. What is given on the command line wins.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import urlsplit

from edgeemo.errors import UsageError
from edgeemo.names import escape_message, escape_name
from edgeemo.options import Config, Typed, clauses, options
from edgeemo.reading import check_regular

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 2**20
SECRET = "env:"  # noqa: S105  before the name of an environment variable
TYPED_ONLY = ("config", "print_config", "print_unit", "make_key")  # options that a file cannot give
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
SOURCES = re.compile(r"\d+|(?:picamera2|synthetic)(?::\d+)?")  # names of sources that are no files
WIDTH = 100  # of the comments of an example
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
}


def make_config(kind: type[Config], typed: Mapping[str, Any], file: Path | None = None) -> Any:
    """Return a config from the options of a command line and, for those that are not typed, of a file.

    Text `env:NAME` is replaced by the environment variable, in both, unless the options are only to be printed: they
    may be prepared where the secrets are not. Raises UsageError as `read_options` does.
    """
    secrets = not (typed.get("print_config") or typed.get("print_unit"))
    found = read_options(kind, file, secrets=secrets) if file else {}
    return kind(**{**found, **(read_secrets(kind, typed) if secrets else typed)})


def read_options(kind: type[Config], file: Path, *, secrets: bool = True) -> dict[str, Any]:
    """Return the options of a file, by the names of the config's fields.

    secrets: replace `env:NAME` by the environment variable.

    Raises UsageError for a file that cannot be read or is not TOML; for a key that is no option, with the nearest one;
    for a value of another type or outside the range; each with its line.
    """
    text = _read(file)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not TOML: {error or 'nested too deeply'}.  See  --print-config") from error
    known = {one.name: one for one in options(kind) if one.name not in TYPED_ONLY}
    values: dict[str, Any] = {}
    for key, value in content.items():
        place = f"{file}, {_find_line(text, key)}"
        one = _find_option(key, known, place)
        if one.name in values:
            raise UsageError(f"{place}: {key} is given twice, with - and with _; leave out one of them")
        values[one.name] = _read_value(one, key, value, file, place, secrets=secrets)
    return values


def read_secrets(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with text `env:NAME` replaced by the environment variable; UsageError if it is not set."""
    return {
        one.name: _read_secret(values[one.name], one.flag) if one.type is str and not one.many else values[one.name]
        for one in options(kind)
        if one.name in values
    }


def anchor(one: Typed, value: Any, folder: Path) -> Any:
    """Return the value of an option with a relative path made relative to a folder; other values as they are.

    Of options that are a path or something else, such as a model's name, text is a path if it has a separator or a
    suffix; of a source also if a file or folder of this name is in the folder.
    """
    if one.many and isinstance(value, (list, tuple)):
        return type(value)(anchor(one, item, folder) for item in value)
    if one.type is Path and isinstance(value, (str, Path)):
        return folder / value if str(value) else value
    if not one.about.may_be_path or not isinstance(value, str) or value in ("", "-"):
        return value
    if URL.match(value) or is_variable(value):
        return value
    is_path = one.about.unit == "FILE" or "/" in value or os.sep in value or Path(value).suffix
    is_there = one.about.argument and not SOURCES.fullmatch(value) and _is_there(folder / value)
    return str(folder / value) if is_path or is_there else value


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name of a file
        return False


def _read(file: Path) -> str:
    try:
        check_regular(file, max_bytes=MAX_BYTES)
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror or error}; --print-config prints a file to start from"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not TOML in UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise UsageError(f"{file} is no file of options: {error}") from error


def _find_line(text: str, key: str) -> str:
    """Return the line that has a key, as "line 3"; for a key that is not written plainly, its name."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return f"line {number}"
    return f"key {escape_name(key)}"


def _find_option(key: str, known: dict[str, Typed], place: str) -> Typed:
    name = key.replace("-", "_")
    if name in known:
        return known[name]
    if name in TYPED_ONLY:
        raise UsageError(f"{place}: {key} belongs on the command line, not in the file")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    advice = f"; did you mean {_key(known[near[0]])}?" if near else f"; known: {', '.join(map(_key, known.values()))}"
    raise UsageError(f"{place}: unknown option {escape_name(key)}{advice}")


def _read_value(one: Typed, key: str, value: Any, file: Path, place: str, *, secrets: bool) -> Any:
    if isinstance(value, dict):
        raise UsageError(f"{place}: {key} is a table; expected {_expect(one)}, and all options outside of tables")
    items = value if one.many and isinstance(value, list) else [value]
    for item in items:
        if not _has_type(item, one.type):
            quoted = f'; write "{item}"' if one.type is str and isinstance(item, (int, float)) else ""
            raise UsageError(f"{place}: {key} = {_show(value)}: expected {_expect(one)}{quoted}")
    if one.type is str and not one.many and is_variable(value):
        if not secrets:
            return value
        value = _read_secret(value, f"{place}: {key}")
    value = anchor(one, value, file.absolute().parent)
    try:
        converted = one.convert(value)
        one.check(converted)
    except UsageError as error:
        raise UsageError(f"{place}: {str(error).replace(one.flag, key, 1)}") from error
    return converted


def _has_type(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else str if kind is Path else kind)


def _expect(one: Typed) -> str:
    return f"a list, each {_NAMES[one.type]}" if one.many else _NAMES[one.type]


def _show(value: Any) -> str:
    """Return a value as a file has it, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return escape_message(text if len(text) <= 60 else f"{text[:57]}...")


def _read_secret(value: Any, name: str) -> Any:
    if not is_variable(value):
        return value
    variable = value.removeprefix(SECRET)
    if not (found := os.environ.get(variable, "")):
        raise UsageError(f"{name} {escape_message(value)}: the environment variable {escape_name(variable)} is not set")
    return found


def write_example(config: Any) -> str:
    """Return a TOML file with all options, explained: the values of a config; options without one are commented out.

    config: a config, or its class, for the defaults. What a file gave as `env:NAME` is written so again, and an address
    that can have a password or token is replaced by it.
    """
    kind = config if isinstance(config, type) else type(config)
    title = (kind.__doc__ or "").strip().partition("\n")[0]
    lines = [f"# {title}", "# The command line wins over this file; relative paths are relative to it.", ""]
    group = ""
    for one in options(kind):
        if one.name in TYPED_ONLY:
            continue
        if one.about.group != group:
            group = one.about.group
            lines += [f"# --- {group} ---", ""]
        value = one.default if config is kind else getattr(config, one.name)
        lines += [*_explain(one), *_write_value(one, value, config), ""]
    return "\n".join(lines)


def has_secret(one: Typed, value: Any) -> bool:
    """Return whether a value is a URL with a password, query or `key=value`, or to post to, whose path may be a token.

    Of a source, also a user alone, who may be a token, and an @ anywhere: it may end a password with a / in it.
    """
    if not isinstance(value, str) or not URL.match(value):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return True
    if parts.scheme in ("mqtt", "mqtts"):  # the query has the version
        return bool(parts.password)
    return bool("@" in value or "=" in value or parts.query or one.about.unit == "URL")


def is_variable(value: Any) -> bool:
    """Return whether a value stands for an environment variable: `env:NAME`."""
    return isinstance(value, str) and value.startswith(SECRET)


def hide_secret(one: Typed, config: Any) -> str | None:
    """Return `env:NAME` for an option of a config whose value must not be printed; None if it may be.

    That is a value which its file takes from the environment, or one that can have a secret; of the latter, NAME is
    EDGEEMO_ with the name of the option.
    """
    value, file = getattr(config, one.name), getattr(config, "config", None)
    if is_variable(value):
        return str(value)
    stored = read_options(type(config), file, secrets=False).get(one.name) if file else None
    if is_variable(stored) and os.environ.get(str(stored).removeprefix(SECRET)) == value:
        return str(stored)
    return f"{SECRET}EDGEEMO_{one.name.upper()}" if has_secret(one, value) else None


def _explain(one: Typed) -> list[str]:
    """Return comments with the help, the choices or unit and range, and the options that it needs."""
    about = one.about
    unit = about.unit if one.type in (int, float) and about.unit not in ("", "N", one.name.upper()) else ""
    notes = [" or ".join(about.choices) or " ".join(filter(None, (unit, about.expected)))]
    needs = [" or ".join(name.replace("_", "-").replace("=", " = ") for name in each) for each in clauses(about.needs)]
    notes += [f"needs {names}" for names in needs]
    text = f"{about.help} ({'; '.join(filter(None, notes))})" if any(notes) else about.help
    return [f"# {line}" for line in wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)]


def _write_value(one: Typed, value: Any, config: Any) -> list[str]:
    if value is None or value is MISSING:
        word = one.about.choices[0] if one.about.choices else one.about.unit or one.name.upper()
        return [f"# {_key(one)} = {word if one.type in (int, float) else json.dumps(word)}"]
    hidden = None if isinstance(config, type) else hide_secret(one, config)
    note = "  # secret: set it in the environment" if hidden else ""
    return [f"{_key(one)} = {_write(hidden or value)}{note}"]


def _write(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(one: Typed) -> str:
    return one.name.replace("_", "-")
