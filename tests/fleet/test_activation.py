"""How far models are that come up by themselves, told of several places as one."""

import pytest

from helexa.fleet.activation import ActivationView, together
from helexa.fleet.view import Activation


@pytest.mark.parametrize(
    ("states", "one"),
    [
        (["ready", "ready"], "ready"),
        (["starting", "ready"], "starting"),
        (["ready", "loading", "starting"], "loading"),
        ([], "ready"),
    ],
)
def test_all_are_ready_when_each_is(states: list[Activation], one: Activation) -> None:
    assert together(states) == one


def test_a_gateway_and_its_own_node_name_each_model_once() -> None:
    gateway = ActivationView("loading", ("a",), ("b", "c"), {"x": "torn"})
    node = ActivationView("loading", ("b",), ("d",), {"x": "gone"})
    assert gateway + node == ActivationView("loading", ("a", "b"), ("c", "d"), {"x": "gone"})
    assert ActivationView("ready") + node == node
