"""Docstrings of public names: presence, parameters, returned values."""

import importlib
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path

import griffe
import pytest

import sits_keras
import sits_keras.data

ROOT = Path(__file__).resolve().parents[2]

# Packages and modules of the public API: all of their functions and classes have Args and Returns.
# Elsewhere, a sentence can describe them.
OFFERING = (sits_keras, sits_keras.data)
MODULES = ("callbacks", "hub", "losses", "networks")


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    return griffe.load(
        "sits_keras",
        search_paths=[ROOT],
        docstring_parser="google",
        # As in mkdocs.yml: the text of a `Returns` section is one description.
        docstring_options={"returns_named_value": False, "returns_multiple_items": False},
    )


def public_members(owner: griffe.Object) -> Iterator[griffe.Object]:
    """Yield public members of a module or class, recursively."""
    for member in owner.members.values():
        if member.is_alias or member.name.startswith("_"):
            continue
        yield member
        if member.is_class or member.is_module:
            yield from public_members(member)


def is_property(member: griffe.Object) -> bool:
    return "property" in member.labels or "cached" in member.labels


def sections_of(member: griffe.Object) -> dict[str, object]:
    parsed = member.docstring.parsed if member.docstring else []
    return {section.kind.value: section.value for section in parsed}


def parameters_of(function: griffe.Object) -> set[str]:
    first = {"self", "cls"} if function.parent.is_class else set()
    return {one.name.lstrip("*") for one in function.parameters} - first


def overrides_another_librarys(member: griffe.Object) -> bool:
    """Return whether a method overrides one of another library (`call`, `convert`)."""
    if not member.parent.is_class:
        return False
    owner = getattr(importlib.import_module(member.module.path), member.parent.name)
    return any(
        member.name in vars(base)
        for base in owner.__mro__
        if base.__module__.split(".")[0] != "sits_keras"
    )


def test_public_names_have_docstrings(package):
    documented = (griffe.Kind.MODULE, griffe.Kind.CLASS, griffe.Kind.FUNCTION)
    silent = [
        member.path
        for member in public_members(package)
        if (member.kind in documented or is_property(member))
        and not member.docstring
        and not overrides_another_librarys(member)
    ]
    assert not silent, f"without a docstring: {silent}"


def test_docstrings_are_read_without_a_warning(package):
    warnings = Warnings()
    logger = logging.getLogger("griffe")
    logger.addHandler(warnings)
    try:
        for member in public_members(package):
            sections_of(member)
    finally:
        logger.removeHandler(warnings)
    assert not warnings.lines, "\n".join(warnings.lines)


def test_args_are_the_parameters(package):
    wrong = []
    for member in public_members(package):
        if member.is_function and (args := sections_of(member).get("parameters")):
            said, real = {one.name.lstrip("*") for one in args}, parameters_of(member)
            if said != real:
                wrong.append(f"{member.path}: {sorted(said ^ real)}")
    assert not wrong, "in Args or in the signature alone:\n" + "\n".join(wrong)


def offered(package: griffe.Module) -> Iterator[griffe.Object]:
    paths = {
        f"{one.__module__}.{one.__qualname__}"
        for where in OFFERING
        for one in (getattr(where, name) for name in where.__all__)
        if inspect.isfunction(one) or inspect.isclass(one)
    }
    for member in public_members(package):
        if member.path in paths or member.parent.path.removeprefix("sits_keras.") in MODULES:
            yield member


def test_public_functions_document_their_arguments(package):
    silent = []
    for member in offered(package):
        sections = sections_of(member)
        if member.is_function and parameters_of(member) and "parameters" not in sections:
            silent.append(member.path)
        if member.is_class and not {"parameters", "attributes"} & sections.keys():
            constructor = member.members.get("__init__")
            if constructor is not None and parameters_of(constructor):
                silent.append(member.path)
    assert not silent, f"without Args: {silent}"


def test_public_functions_document_their_returns(package):
    silent = [
        member.path
        for member in offered(package)
        if member.is_function
        and str(member.returns) not in ("None", "NoReturn")
        and not {"returns", "yields"} & sections_of(member).keys()
    ]
    assert not silent, f"without Returns: {silent}"
