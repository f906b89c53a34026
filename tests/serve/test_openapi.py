"""What the server says of itself is true, and nothing that follows from it makes a 5xx."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from process import Helexa, call
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.real

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MANY, FEW = 25, 5  # examples: few of a body that was tried at another operation
EXAMPLES = settings(derandomize=True, suppress_health_check=list(HealthCheck))


def modes(operation: Any) -> list[schemathesis.GenerationMode]:
    """Only a body can break its description: a path holds any text."""
    takes = list(operation.body)
    return list(schemathesis.GenerationMode)[: 2 if takes else 1]


def operations(served: Helexa, role: str) -> list[Any]:
    description = schemathesis.openapi.from_url(served.url(role) + "/openapi.json")
    return [found.ok() for found in description.get_all_operations()]


def body_of(operation: Any) -> str:
    """How its body is described, if it takes one: operations of the same one read it by the same code."""
    return json.dumps(operation.definition.raw.get("requestBody"))


@pytest.mark.parametrize("role", ["gateway", "node"])
def test_a_listener_keeps_its_description(served: Helexa, role: str) -> None:
    """Every operation is tried with what its description allows, and with what it does not."""
    tried = {body_of(each) for each in operations(served, "gateway")} if role == "node" else set()
    for operation in operations(served, role):
        body = body_of(operation)
        few = operation.body and body in tried
        tried.add(body)
        for mode in modes(operation):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(EXAMPLES, max_examples=FEW if few else MANY)
            def check(case: schemathesis.Case) -> None:
                case.call_and_validate(checks=CHECKS)

            check()
    assert served.status["open"] == {"sequences": 0, "slots": 0, "reservations": 0}


def test_every_route_is_described(served: Helexa) -> None:
    both = {"/v1/models", "/v1/models/{id}", "/v1/chat/completions", "/v1/completions"}
    both |= {"/v1/responses", "/v1/messages", "/v1/messages/count_tokens"}
    for role, paths in {
        "gateway": {"/", "/health"},
        "node": {"/discovery", "/health", "/version", "/models", "/models/load", "/models/unload"},
    }.items():
        description = call("GET", served.url(role) + "/openapi.json")[2]
        assert both | paths <= set(description["paths"])
