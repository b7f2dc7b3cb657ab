import inspect

import pytest

from sits_keras import errors

BUILTINS = {
    errors.ConfigError: ValueError,
    errors.DataError: ValueError,
    errors.MissingError: FileNotFoundError,
    errors.ExistsError: FileExistsError,
    errors.OutputError: OSError,
    errors.MissingLibraryError: ImportError,
    errors.DivergedError: ArithmeticError,
}


@pytest.mark.parametrize(("error", "builtin"), BUILTINS.items())
def test_an_error_is_caught_as_the_packages_and_as_the_builtin_it_resembles(error, builtin):
    for caught in (errors.SitsKerasError, builtin):
        with pytest.raises(caught, match="no such band"):
            raise error("no such band")


def test_every_error_class_is_in_the_table_above():
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass)}
    assert classes == {errors.SitsKerasError, *BUILTINS}


def test_the_two_kinds_of_value_error_are_told_apart():
    assert not issubclass(errors.DataError, errors.ConfigError)
    assert not issubclass(errors.ConfigError, errors.DataError)
