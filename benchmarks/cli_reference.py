"""Write docs/cli.md, the reference of commands, options and exit codes: `make readme`.

Everything is defined in edgeemo/stages.py (commands, options, recipes), edgeemo/bench/gates.py (gates) and
edgeemo/errors.py (exit codes); this script only lays it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from edgeemo import cli, errors
from edgeemo.bench.gates import GATES
from edgeemo.options import Typed, clauses, options, spell_flag
from edgeemo.stages import RECIPES, STAGES, Stage, Train

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
INTRODUCTION = """\
<!-- Written by benchmarks/cli_reference.py from edgeemo/stages.py and edgeemo/errors.py: `make readme`. -->
# Command line

Commands are listed in the order of the pipeline. `edgeemo COMMAND --help` shows the common options of a command, and
`--help-all` shows every option; those that only `--help-all` shows are marked with an asterisk here. Option names may
be written with underscores (`--batch_size`). An option that would have no effect is refused, with a message that names
the option it needs. `--quiet`, before or after the command, prints results, warnings and errors only.

Thresholds on a measured rate, such as accuracy or agreement, are in percent. Fractions that are set, such as dropout or
the fraction of channels to prune, are between 0 and 1.
"""
EXTRAS = {
    "train": "Needs the extra `train`.",
    "tensorrt": "Needs the extra `tensorrt` or `rtx`.",
    "serve": "Needs the extra `serve`.",
    "bench": "Runs in the base install; plots need the extra `bench`.",
    "": "Runs in the base install.",
}
EXIT_CODES = {
    0: "success; for `bench`: no gate failed, and every gate of a `--target` was measured",
    errors.GateError: "a gate failed or could not be measured (`bench`, `parity`, `doctor --check`), `search` found "
    "nothing within the budget, or `compress` refused a model: too little agreement or INT8, or an overflow",
    errors.UsageError: "wrong usage: an unknown option, name or combination",
    errors.DataError: "data that cannot be used: missing, empty or unreadable",
    errors.IntegrityError: "a model or card that is missing, changed, damaged or not edgeemo's",
    errors.MachineError: "this machine lacks something: a package, a device, a network or disk space",
    cli.INTERRUPTED: "interrupted; a command with `--resume` continues from its last checkpoint",
    errors.ClosedPipeError: "standard output is not read any more, as after `| head`; the command stops without a "
    "message, after a warning about files that are not complete",
}
UNITS = {"share": "percent", "points": "percentage points"}  # of a gate's limit
KINDS = {int: "N", float: "number", str: "text", Path: "path"}


def page() -> str:
    """The whole of docs/cli.md."""
    parts = [INTRODUCTION]
    for stage in STAGES:
        parts += _stage(stage)
    return "\n".join([*parts, *_recipes(), *_gates(), *_exit_codes()])


def _stage(stage: Stage) -> Iterator[str]:
    about = options(stage.config)
    words = ["edgeemo", stage.command, "[OPTIONS]", *(_place(one) for one in about if one.about.argument)]
    yield f"## {stage.command}\n"
    yield f"{_paragraph(stage.config.__doc__)}\n"
    yield f"Usage: `{' '.join(words)}`. {EXTRAS[stage.extra]}\n"
    if arguments := [(f"`{one.flag}`", _place_text(one)) for one in about if one.about.argument]:
        yield _table(("argument", "description"), arguments)
    groups: dict[str, list[tuple[str, ...]]] = {"": []}
    if stage.config is Train:
        groups[""] += _recipe_options()
    for one in about:
        if not one.about.argument:
            groups.setdefault(one.about.group, []).append(_row(one))
    if stage.json:
        groups[""].append(("`--json`", "", "off", stage.json))
    for group, rows in groups.items():
        if group:
            yield f"### {stage.command}: {group}\n"
        yield _table(("option", "value", "default", "description"), rows)


def _place(one: Typed) -> str:
    name = f"{one.flag}..." if one.many else one.flag
    return name if one.default is MISSING else f"[{name}]"


def _place_text(one: Typed) -> str:
    return one.about.help + _needs(one)


def _row(one: Typed) -> tuple[str, ...]:
    name = f"`{one.flag}`"
    if one.type is bool and one.default:
        name += f" / `--no-{one.flag[2:]}`"
    return (name + (r" \*" if one.about.rare else ""), _value(one), _default(one), one.about.help + _needs(one))


def _value(one: Typed) -> str:
    """Choices, or the unit and the range."""
    about = one.about
    if about.choices:
        listed = ", ".join(f"`{choice}`" for choice in about.choices)
        return f"{listed}, separated by commas" if one.many else listed
    if one.type is bool:
        return ""
    unit = about.unit or KINDS[one.type]
    return f"{unit}: {about.expected}" if about.expected else unit


def _default(one: Typed) -> str:
    if one.default is MISSING:
        return "required"
    if one.default is None or one.default == ():
        return ""
    if isinstance(one.default, bool):
        return "on" if one.default else "off"
    return f"`{','.join(map(str, one.default)) if one.many else one.default}`"


def _needs(one: Typed) -> str:
    needed = [" or ".join(_spelled(name) for name in clause) for clause in clauses(one.about.needs)]
    excluded = re.findall(r"!([\w=]+)", one.about.needs)
    found = f"; needs {', and '.join(needed)}" if needed else ""
    return found + (f"; not with {', '.join(_spelled(name) for name in excluded)}" if excluded else "")


def _spelled(condition: str) -> str:
    """loss=focal as `--loss focal`; an argument as it is named."""
    name, _, value = condition.partition("=")
    flag = name.upper() if name == "images" else spell_flag(name)
    return f"`{f'{flag} {value}'.rstrip()}`"


def _recipe_options() -> Iterator[tuple[str, ...]]:
    for one in cli.RECIPE:
        choices = ", ".join(f"`{choice}`" for choice in getattr(one.type, "choices", ()))
        yield (f"`{one.opts[0]}`", choices, f"`{one.default}`" if choices else "off", str(one.help))


def _recipes() -> Iterator[str]:
    yield "## Recipes\n"
    yield (
        "`edgeemo train` starts from the settings of a recipe, `enhanced` if none is named; options on the command\n"
        "line override them. This is where each recipe differs from the defaults in the tables of `train`:\n"
    )
    plain = Train()
    changed = {one.name for one in options(Train) for recipe in RECIPES.values() if _differs(one, recipe, plain)}
    rows = [
        (f"`{one.flag}`", *(_setting(one, recipe, plain) for recipe in RECIPES.values()))
        for one in options(Train)
        if one.name in changed
    ]
    yield _table(("option", *(f"`{name}`" for name in RECIPES)), rows)


def _differs(one: Typed, recipe: Train, plain: Train) -> bool:
    return bool(getattr(recipe, one.name) != getattr(plain, one.name))


def _setting(one: Typed, recipe: Train, plain: Train) -> str:
    if not _differs(one, recipe, plain):
        return ""
    value = getattr(recipe, one.name)
    return ("on" if value else "off") if isinstance(value, bool) else f"`{value}`"


def _gates() -> Iterator[str]:
    yield "## Gates of a target file\n"
    yield (
        "`edgeemo bench --target FILE` reads a TOML file with a `name` and a line per gate, such as\n"
        "`accuracy = 80`. A gate passes if what is measured compares with its limit as the second column says.\n"
    )
    rows = [
        (f"`{name}`", f"{gate.what} {gate.sign} limit", UNITS.get(gate.unit, gate.unit), _all_of(gate.needs))
        for name, gate in GATES.items()
    ]
    yield _table(("gate", "passes if", "limit in", "needs"), rows)


def _all_of(flags: Iterable[str]) -> str:
    return " and ".join(f"`{flag}`" for flag in flags)


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    rows = [(str(getattr(code, "exit_code", code)), meaning) for code, meaning in EXIT_CODES.items()]
    yield _table(("code", "meaning"), rows).rstrip("\n")
    yield ""
    yield "Any other failure is a bug in edgeemo and shows its traceback.\n"


def _paragraph(text: str | None) -> str:
    """A docstring without its indentation."""
    return "\n".join(line.strip() for line in (text or "").strip().splitlines())


def _table(head: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
