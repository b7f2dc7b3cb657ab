import inspect
import itertools

import pytest

from sits_keras import errors

BUILTINS = {
    errors.ArgumentError: ValueError,
    errors.ConfigError: ValueError,
    errors.DataError: ValueError,
    errors.MissingError: FileNotFoundError,
    errors.ExistsError: FileExistsError,
    errors.OutputError: OSError,
    errors.MissingLibraryError: ImportError,
    errors.DivergedError: ArithmeticError,
}


@pytest.mark.parametrize(("error", "builtin"), BUILTINS.items())
def test_error_is_caught_as_package_error_and_as_builtin(error, builtin):
    for caught in (errors.SitsKerasError, builtin):
        with pytest.raises(caught, match="no such band"):
            raise error("no such band")


def test_errors_module_has_only_tested_classes():
    members = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    classes = {value for value in members if issubclass(value, BaseException)}
    assert classes == {errors.SitsKerasError, *BUILTINS}


def test_value_errors_are_not_subclasses_of_each_other():
    classes = (errors.ArgumentError, errors.ConfigError, errors.DataError)
    for one, other in itertools.permutations(classes, 2):
        assert not issubclass(one, other)
