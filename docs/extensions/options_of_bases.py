"""Completes the reference: classes whose `__init__` passes `**options` on show the arguments of their bases, too.

`lightning_cnn.options.merged_signature` does the same for the signatures that Python and the command line see.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from griffe import Class, Extension, Function, Module, Parameter, ParameterKind, Parameters

BY_NAME = ParameterKind.keyword_only
REST = ParameterKind.var_keyword
SELF = Parameter("self", kind=ParameterKind.positional_or_keyword)


class OptionsOfBases(Extension):
    """Adds the arguments of the bases to the signatures, and their descriptions as `Keyword Args`."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Called by griffe when the package has been read."""
        for kind, inherited in [(kind, [*_inherited(kind)]) for kind in _classes(pkg)]:
            if inherited and kind.docstring is not None:
                own = [each for each in _parameters(kind) or [SELF] if each.kind is not REST]
                added = [
                    Parameter(each.name, annotation=each.annotation, kind=BY_NAME, default=each.default)
                    for each, _ in inherited
                ]
                kind.set_member("__init__", Function("__init__", parameters=Parameters(*own, *added)))
                lines = "\n".join(text for _, text in inherited if text)
                kind.docstring.value += f"\n\nKeyword Args:\n{lines}"


def _classes(module: Module) -> Iterator[Class]:
    for member in module.members.values():
        if not member.is_alias and member.is_class:
            yield member
        elif not member.is_alias and member.is_module:
            yield from _classes(member)


def _inherited(kind: Class) -> Iterator[tuple[Parameter, str]]:
    """The arguments that a class has from its bases, each with its description in the docstring of the base."""
    known = {each.name for each in _parameters(kind) or [SELF]} | _fixed(kind)
    described = {*_descriptions(kind)}
    passes = _passes_on(kind)
    for base in kind.mro():
        if not passes:
            return
        if "__init__" in base.members:
            texts = _descriptions(base)
            for each in _parameters(base) or ():
                if each.name not in known and each.kind not in (REST, ParameterKind.var_positional):
                    known.add(each.name)
                    yield each, "" if each.name in described else texts.get(each.name, "")
            passes = _passes_on(base)
        known |= _fixed(base)


def _parameters(kind: Class) -> Parameters | None:
    return kind.members["__init__"].parameters if "__init__" in kind.members else None


def _passes_on(kind: Class) -> bool:
    """Whether a class hands arguments to its bases: `**options`, or no `__init__` of its own."""
    parameters = _parameters(kind)
    return parameters is None or any(each.kind is REST for each in parameters)


def _fixed(kind: Class) -> set[str]:
    """The arguments of its bases that a class sets itself."""
    return set(ast.literal_eval(str(kind.members["fixed"].value))) if "fixed" in kind.members else set()


def _descriptions(kind: Class) -> dict[str, str]:
    """The entries of `Args` in a docstring, each with its indentation."""
    text = kind.docstring.value if kind.docstring else ""
    found = re.search(r"^Args:\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
    entries = re.findall(r"^    \w+: .*(?:\n {5,}.*)*", found[1] if found else "", re.MULTILINE)
    return {entry.split(":")[0].strip(): entry for entry in entries}
