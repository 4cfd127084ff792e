"""From the names in the configuration to the classes of extensions, or to every fault at once.

The classes are of any package that Python finds; importing it is the first thing of it that runs.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.extension import ExtensionActor
from actors.extension_options import OptionsRefused, read_options
from services.additions import method_fault, page_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from config.extensions import ExtensionEntry


class ExtensionsRefused(Exception):  # noqa: N818 - named for what happened
    """An extension cannot be used; the text names every entry that is at fault, and why."""


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension that can be started."""

    name: str
    """Its class's name; a second one of the class has a number."""
    actor: str
    """As the configuration names it."""
    make: type[ExtensionActor]
    options: Any


def find_extensions(entries: Sequence[ExtensionEntry]) -> list[Extension]:
    """Return what *entries* name, in their order; raises ExtensionsRefused with every fault."""
    found: list[Extension] = []
    faults: list[str] = []
    taken: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        try:
            extension = _found(entry, [each.make for each in found])
            _claim(extension, taken)
        except ExtensionsRefused as refused:
            faults.append(f"extension {number} ({entry.actor}): {refused}")
        else:
            found.append(extension)
    if faults:
        raise ExtensionsRefused("; ".join(faults))
    return found


def _found(entry: ExtensionEntry, before: Sequence[type[ExtensionActor]]) -> Extension:
    module_name, _, class_name = entry.actor.partition(":")
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # it may raise anything: it is somebody's program
        raise ExtensionsRefused(f"cannot import {module_name}: {type(error).__name__}: {error}") from error
    make = getattr(module, class_name, None)
    if not isinstance(make, type):
        raise ExtensionsRefused(f"{module_name} has no class {class_name}")
    if not issubclass(make, ExtensionActor) or make is ExtensionActor or inspect.isabstract(make):
        raise ExtensionsRefused(f"{class_name} is no extension: it must inherit from actors.extension.ExtensionActor")
    try:
        options = read_options(make.Options, entry.options)
    except OptionsRefused as refused:
        raise ExtensionsRefused(str(refused)) from refused
    count = sum(1 for each in before if each.__name__ == make.__name__)
    name = f"{make.__name__}-{count + 1}" if count else make.__name__
    return Extension(name, entry.actor, make, options)


def _claim(extension: Extension, taken: dict[str, str]) -> None:
    """Note which paths *extension* answers in *taken*, unless somebody else does."""
    make = extension.make
    faults: list[str] = []
    for path in _texts("pages", make.pages):
        faults += [fault for fault in (page_fault(path),) if fault]
    for path in (*_texts("methods", make.methods), *_texts("streams", make.streams)):
        faults += [fault for fault in (method_fault(path),) if fault]
    claimed = [*make.pages, *make.methods, *make.streams]
    faults += [f"{path} is answered by the extension {taken[path]}" for path in claimed if path in taken]
    if faults:
        raise ExtensionsRefused("; ".join(faults))
    taken.update(dict.fromkeys(claimed, extension.name))


def _texts(what: str, values: Iterable[object]) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ExtensionsRefused(f"its {what} must be a list of paths")
    return [str(value) for value in values]
