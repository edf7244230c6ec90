"""What is said to who calls with a word that is not there, or leaves one out."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def says_its_options(example: str, **elsewhere: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make an `__init__` refuse unknown keywords by name, and say what is missing; TypeError for both.

    `example`: the line that shows what is needed. `elsewhere`: our words for those of other libraries.
    """

    def decorate(original: Callable[P, None]) -> Callable[P, None]:
        parameters = list(inspect.signature(original).parameters.values())[1:]
        names = [parameter.name for parameter in parameters]
        needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]

        @functools.wraps(original)
        def init(*args: P.args, **keywords: P.kwargs) -> None:
            owner = type(args[0]).__name__
            for name in keywords:
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    hint = f" Did you mean {near[0]!r}?" if near else ""
                    if name in elsewhere:
                        hint = f" Give {elsewhere[name]!r}: {example}."
                    raise TypeError(f"{owner} has no option {name!r}.{hint} Its options: {', '.join(names)}.")
            missing = [name for name in needed if name not in keywords and name not in names[: len(args) - 1]]
            if missing:
                raise TypeError(f"{owner} needs {' and '.join(missing)}: {example}.")
            original(*args, **keywords)

        return init

    return decorate
