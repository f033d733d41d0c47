from __future__ import annotations

import pytest

from distill.errors import ConfigError
from distill.losses.methods import METHODS, resolve


def test_a_method_with_a_recipes_changes():
    assert resolve("std-lr", {}) == METHODS["std-lr"]
    changed = resolve("std-lr", {"time": "1e-4", "output": 2, "space": 0}, truth=0.5, features="hr")
    assert changed.weights == {"time": 1e-4, "output": 2.0}
    assert (changed.truth, changed.features) == (0.5, "hr")
    assert METHODS["std-lr"].weights == {"space": 0.1, "time": 10.0}, "the table was changed"


def test_truth_may_be_left_out_by_the_method_or_by_the_recipe():
    assert (resolve("std", {}).truth, resolve("star", {}).truth) == (1, 0)
    assert (resolve("std", {}, truth=0).truth, resolve("star", {}, truth=1).truth) == (0, 1)


def test_unknown_methods_and_terms_are_refused_together():
    with pytest.raises(ConfigError, match=r"There is no method 'stdd'. Did you mean 'std'"):
        resolve("stdd", {})
    with pytest.raises(ConfigError, match=r"has no term 'spaec'.* distillation.weights.time is -1, expected a number"):
        resolve("std", {"spaec": 1, "time": -1})


@pytest.mark.parametrize("weight", [True, "much", None, float("inf"), float("nan"), [1]])
def test_a_weight_is_a_number_from_0_up(weight):
    with pytest.raises(ConfigError, match="expected a number from 0 up"):
        resolve("std", {"time": weight})
