"""Options of a stage: each one is defined once, by a dataclass field.

The annotation gives its type; `option` gives default, range, choices, help, required options and group. The command
line, the checks of `check`, the entry in a card's history and the reference in docs/cli.md are derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path, PurePath
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from edgeemo.errors import UsageError, known
from edgeemo.names import escape_name, is_utf8

PERCENT = "PERCENT"  # unit of options in percent; 0.98 is refused, because 98 was meant


@dataclass(frozen=True)
class Option:
    """The properties of an option besides its type and default."""

    help: str
    unit: str = ""  # of its value, as shown in the help: PIXELS, MS
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None  # exclusive
    below: float | None = None  # exclusive
    # Other options without which it has no effect, or with which: "int8", "prune|size & epochs", "loss=focal", "!boxes"
    needs: str = ""
    group: str = ""  # heading in the help; empty: the default heading
    rare: bool = False  # shown by --help-all only
    argument: bool = False  # positional on the command line
    any_name: bool = False  # a path of any bytes; others must be UTF-8, because safetensors and ONNX open them so
    may_be_path: bool = False  # text that can contain a path on this machine, which no card must show

    @property
    def expected(self) -> str:
        """The range in words: 1 or more; 0 to 1; above 0; empty without one."""
        lower = f"above {self.above:g}" if self.above is not None else "" if self.least is None else f"{self.least:g}"
        upper = f"below {self.below:g}" if self.below is not None else "" if self.most is None else f"{self.most:g}"
        if lower and upper:
            return f"{lower} to {upper}"
        return lower if self.above is not None else f"{lower} or more" if lower else upper

    def allows(self, value: float) -> bool:
        """Return whether a number is in the range."""
        return not (
            (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
            or value != value  # NaN is in no range  # noqa: PLR0124
        )


def spell_flag(name: str) -> str:
    """Return the flag of a field: --batch-size, and --for of `for_`."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def option(default: Any, text: str, **about: Any) -> Any:
    """Define a config field that is also an option of a command; `about`: fields of Option."""
    return field(default=default, metadata={"option": Option(text, **about)})


def argument(text: str, *, default: Any = MISSING, **about: Any) -> Any:
    """Define a config field that is a positional argument of a command; without a default it is required."""
    return field(default=default, metadata={"option": Option(text, argument=True, **about)})


def like(config: type, name: str, *, default: Any = MISSING, **changes: Any) -> Any:
    """Define the same option as in another config, with another default or other changes."""
    source = {f.name: f for f in fields(config)}[name]
    kept = source.default if default is MISSING else default
    return field(default=kept, metadata={"option": replace(source.metadata["option"], **changes)})


class Config:
    """Base class of every stage's config: paths may be given as text, and lists as any sequence."""

    def __post_init__(self) -> None:
        """Convert text to paths and sequences to tuples according to the annotations."""
        for one in options(type(self)):
            object.__setattr__(self, one.name, one.convert(getattr(self, one.name)))


@dataclass(frozen=True)
class Typed:
    """An option with its name, type and default."""

    name: str
    type: type  # bool, int, float, str or Path; of a list, of its items
    many: bool  # a tuple of values
    optional: bool  # None stands for "not given"
    default: Any  # MISSING if it is required
    about: Option

    @property
    def flag(self) -> str:
        """As on the command line: --batch-size; --for of `for_`, which Python reserves; MODEL for an argument."""
        return self.name.upper() if self.about.argument else spell_flag(self.name)

    def convert(self, value: Any) -> Any:
        """Convert text to a path, and a sequence or comma-separated text to a tuple; return other values unchanged."""
        if not self.many:
            return self._convert_one(value)
        if isinstance(value, PurePath) or (self.about.argument and isinstance(value, str)):
            return (self._convert_one(value),)
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        try:
            return tuple(self._convert_one(part) for part in parts)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.flag} {value!r}: expected values separated by commas ({error})") from error

    def _convert_one(self, value: Any) -> Any:
        if isinstance(value, PurePath) and self.type is str:
            return str(value)
        if not isinstance(value, str) or self.type is str:
            return value
        if self.type is Path and not value:  # Path("") is the current folder
            raise UsageError(f"{self.flag} is empty: expected a path, or leave it out")
        return self.type(value) if self.type is Path or self.many else value

    def is_default(self, value: Any) -> bool:
        """Return whether the value is the default."""
        return bool(value == self.default)

    def check(self, value: Any) -> None:
        """Raise UsageError for a value of another type, outside the range or not among the choices."""
        if value is None and self.optional:
            return
        if self.many:
            if not isinstance(value, tuple):
                raise UsageError(f"{self.flag} {value!r}: expected a list of {self.type.__name__}")
            if not value and not self.optional and self.default is MISSING:
                raise UsageError(f"{self.flag} is empty: expected at least one")
            for item in value:
                self._check_one(item)
            return
        self._check_one(value)

    def _check_one(self, value: Any) -> None:
        accepted: Any = (int, float) if self.type is float else self.type
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.type is not bool):
            raise UsageError(f"{self.flag} {value!r}: expected {_ARTICLES[self.type]}")
        is_path = isinstance(value, PurePath) or self.about.may_be_path
        if is_path and not self.about.any_name and not is_utf8(value):
            raise UsageError(
                f"{self.flag} {escape_name(str(value))}: expected a path in UTF-8; rename the file or folder"
            )
        if self.about.choices and value not in self.about.choices:
            raise known(self.name.rstrip("_").replace("_", " "), str(value), self.about.choices)
        if value == "" and self.about.choices == ():
            raise UsageError(f"{self.flag} is empty: expected {_ARTICLES[self.type]}, or leave it out")
        if isinstance(value, (int, float)) and not self.about.allows(value):
            raise UsageError(f"{self.flag} {value:g}: expected {self.about.expected}")
        if self.about.unit == PERCENT and 0 < value <= 1:
            raise UsageError(f"{self.flag} {value:g}: expected percent; write {value * 100:g} for {value * 100:g} %")


_ARTICLES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def options(config: type) -> tuple[Typed, ...]:
    """Return the options of a config, in order."""
    return _make_options(config)


@cache
def _make_options(config: Any) -> tuple[Typed, ...]:
    hints = get_type_hints(config)
    return tuple(_make_typed(f, hints[f.name]) for f in fields(config))


def _make_typed(one: Field[Any], hint: Any) -> Typed:
    parts = [part for part in get_args(hint) if part is not NoneType]
    many = get_origin(hint) is tuple
    kind = parts[0] if parts else hint
    return Typed(one.name, kind, many, NoneType in get_args(hint), one.default, one.metadata["option"])


def check(config: Any) -> None:
    """Raise UsageError for the first option that is out of range, unknown, missing or without effect."""
    for one in options(type(config)):
        one.check(getattr(config, one.name))
    for one in options(type(config)):
        value = getattr(config, one.name)
        if one.about.needs and not one.is_default(value):
            _check_needs(config, one, value)


def _check_needs(config: Any, one: Typed, value: Any) -> None:
    flag = one.flag.replace("--", "--no-", 1) if value is False else one.flag
    if excluded := [name for name in _list_excluded(one.about.needs) if _given(config, name)]:
        raise UsageError(f"{flag} has no effect with {_spell(config, excluded[0])}: leave out one of them")
    if missing := [clause for clause in clauses(one.about.needs) if not any(_given(config, name) for name in clause)]:
        needed = ", and ".join(" or ".join(_spell(config, name) for name in clause) for clause in missing)
        raise UsageError(f"{flag} has no effect without {needed}: add it, or leave out {flag}")


def clauses(needs: str) -> list[list[str]]:
    """Parse `"prune|size & epochs"` to [["prune", "size"], ["epochs"]]: one of each is needed."""
    parts = (part.strip() for part in needs.split("&") if part.strip() and not part.strip().startswith("!"))
    return [[name.strip() for name in part.split("|")] for part in parts]


def _list_excluded(needs: str) -> Iterator[str]:
    return (part.strip()[1:] for part in needs.split("&") if part.strip().startswith("!"))


def has_effect(config: Any, name: str) -> bool:
    """Return whether the options that an option needs are given in this config."""
    needs = {one.name: one.about.needs for one in options(type(config))}[name]
    return all(any(_given(config, other) for other in clause) for clause in clauses(needs))


def _given(config: Any, condition: str) -> bool:
    name, _, required = condition.partition("=")
    value = getattr(config, name)
    return bool(value == required if required else value)


def _spell(config: Any, condition: str) -> str:
    name, _, required = condition.partition("=")
    flag = next(one.flag for one in options(type(config)) if one.name == name)
    return f"{flag} {required}".strip()


def settings(config: Any) -> dict[str, Any]:
    """Return a config as JSON-ready values, with full paths."""
    return {name: _to_json(value) for name, value in asdict(config).items()}


def public_settings(config: Any) -> dict[str, Any]:
    """Return a config as JSON-ready values; of paths only the last part, so that no card shows a machine's folders."""
    values = settings(config)
    for one in options(type(config)):
        if one.type is Path or one.about.may_be_path:
            values[one.name] = _strip_folders(values[one.name])
    return values


def _to_json(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_to_json(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def _strip_folders(value: Any) -> Any:
    if isinstance(value, list):
        return [_strip_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    kind, colon, where = value.partition(":")  # faces are KIND:PATH
    if not colon or PurePath(kind).name != kind:
        kind, colon, where = "", "", value
    return f"{kind}{colon}{escape_name(PurePath(where).name)}"


def read_settings(config: type, values: dict[str, Any]) -> Any:
    """Return a config from `settings` of this or an earlier edgeemo; unknown ones are ignored.

    Earlier versions wrote empty text or a number outside the range for options that were not given, and lists as
    comma-separated text. Raises KeyError or TypeError for anything but settings.
    """
    return config(**{one.name: _read(one, values[one.name]) for one in options(config) if one.name in values})


def _read(one: Typed, value: Any) -> Any:
    missing = value == "" or (isinstance(value, (int, float)) and not one.about.allows(value))
    return None if one.optional and missing else value
