"""Dataclasses of options: unknown names are refused with a sentence, and `help` says what each option is."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import textwrap
from typing import Any, TypeVar

T = TypeVar("T")


def strict(cls: type[T]) -> type[T]:
    """Make a dataclass refuse unknown keywords with a sentence that offers the nearest field, and say what is missing.

    Where a class has fields without a default, its `EXAMPLE` is the line that shows them. `ELSEWHERE`, if it has one,
    says of names that other libraries use where the same thing is set here. What stands below the fields in the
    source becomes a part of the class's docstring, so that `help` shows it.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [f.name for f in fields]
    needed = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    original = cls.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = getattr(cls, "ELSEWHERE", {}).get(name) or (f"Did you mean {near[0]!r}?" if near else "")
                hint = f" {hint}" if hint else ""
                raise TypeError(f"{cls.__name__} has no option {name!r}.{hint} Its options: {', '.join(names)}.")
        missing = [name for name in needed if name not in keywords and name not in names[: len(args)]]
        if missing:
            raise TypeError(f"{cls.__name__} needs {' and '.join(missing)}: {cls.EXAMPLE}.")  # type: ignore[attr-defined]
        original(self, *args, **keywords)

    cls.__init__ = __init__  # type: ignore[method-assign]
    cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nOptions:\n{_described(cls)}".rstrip()
    return cls


def _described(cls: type) -> str:
    """A paragraph for each field of a dataclass: its name, its type and default, and the docstring below it."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except OSError:  # there is no source where Python was given compiled files alone
        return ""
    assert isinstance(definition, ast.ClassDef)  # noqa: S101
    told = []
    for field, below in itertools.pairwise(definition.body):
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            text = " ".join(below.value.value.split())
        told.append(f"    {ast.unparse(field)}\n{textwrap.indent(textwrap.fill(text, 100), ' ' * 8)}")
    return "\n".join(told)


def check_count(owner: str, name: str, value: Any) -> None:
    """Raise unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        written = f" Write {int(value):_}." if isinstance(value, float) and value.is_integer() else ""
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}.{written}")
    if value < 1:
        raise ValueError(f"{owner}: {name} must be at least 1, got {value}.")
