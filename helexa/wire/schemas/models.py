"""The JSON schemas of the lists of models."""

from typing import get_args

from helexa.conversation import Json
from helexa.fleet.entry import ModelStatus
from helexa.wire.schemas.shapes import BOOLEAN, INTEGER, STRING, list_of, object_of, one_of, ref


def model_schemas() -> dict[str, Json]:
    price = {"type": "number", "minimum": 0}
    status = one_of(*get_args(ModelStatus))
    abilities: dict[str, Json] = {
        "capabilities": list_of(STRING),
        "tool_call": BOOLEAN,
        "reasoning": BOOLEAN,
    }
    known: dict[str, Json] = {
        "limit": object_of(context=INTEGER, input=INTEGER, output=INTEGER),
        "limit_estimated": BOOLEAN,
        "cost": object_of({"cache_read": price, "cache_write": price}, input=price, output=price),
    }
    return {
        "ModelList": object_of(object=one_of("list"), data=list_of(ref("Model"))),
        "Model": object_of(
            {**known, "context_length": INTEGER},
            id=STRING,
            object=one_of("model"),
            created=INTEGER,
            owned_by=STRING,
            loaded=BOOLEAN,
            status=status,
            feasible_on=list_of(STRING),
            locations=list_of(object_of(node=STRING, status=status)),
            **abilities,
        ),
        "NodeModel": object_of(
            {**known, "error": STRING},
            id=STRING,
            harness=STRING,
            status=status,
            devices=list_of(INTEGER),
            vram_used_mb=INTEGER,
            **abilities,
        ),
    }
