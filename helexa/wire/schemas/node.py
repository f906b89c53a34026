"""The JSON schemas of the node's own API."""

from helexa.conversation import Json
from helexa.wire.schemas.shapes import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    integer,
    list_of,
    nullable,
    object_of,
    one_of,
    ref,
)


def node_schemas() -> dict[str, Json]:
    reading = nullable(NUMBER)
    return {
        "Discovery": object_of(
            {
                "kernel": STRING,
                "driver_version": STRING,
                "cuda_version": STRING,
                "cuda_unavailable_reason": STRING,
            },
            hostname=STRING,
            os=STRING,
            devices=list_of(ref("Device")),
            harnesses=list_of(STRING),
            max_prompt_tokens=INTEGER,
            stored=list_of(STRING),
        ),
        "Device": object_of(
            index=INTEGER,
            name=STRING,
            uuid=STRING,
            vram_total_mb=INTEGER,
            compute_capability=nullable(STRING),
        ),
        "NodeHealth": object_of(
            uptime_secs=NUMBER,
            devices=list_of(
                object_of(
                    index=INTEGER,
                    vram_used_mb=reading,
                    vram_free_mb=reading,
                    utilization_percent=reading,
                    temperature_c=reading,
                    power_w=reading,
                )
            ),
            activation=object_of(
                {"why": {"type": "object", "additionalProperties": STRING}},
                state=one_of("starting", "loading", "ready"),
                loading=list_of(STRING),
                pending=list_of(STRING),
                failed=list_of(STRING),
            ),
            models=list_of(
                object_of(
                    {
                        "service_seconds": NUMBER,
                        "width": INTEGER,
                        "waiting_keys": INTEGER,
                        "expected_wait_seconds": NUMBER,
                        "spare_mb": INTEGER,
                        "done_bytes": INTEGER,
                        "total_bytes": INTEGER,
                    },
                    id=STRING,
                    in_flight=INTEGER,
                    queue_depth=INTEGER,
                )
            ),
        ),
        "FileList": object_of(
            source=STRING,
            files=list_of(object_of(name=STRING, bytes=INTEGER, sha256=STRING)),
        ),
        "LoadRequest": object_of(
            {
                "harness": nullable(STRING),
                "quant": nullable(STRING),
                "tensor_parallel": nullable(integer(1, 64)),
                "devices": nullable(list_of(INTEGER)),
                "source": nullable(STRING),
                "on_demand": nullable(BOOLEAN),
                "by": nullable(one_of("request", "operator")),
                "download": nullable(one_of("never", "on_demand")),
            },
            model_id={"type": "string", "minLength": 1},
        ),
        "UnloadRequest": object_of(
            {"if_idle": nullable(BOOLEAN)}, model_id={"type": "string", "minLength": 1}
        ),
        "Endpoint": object_of(url=STRING),
    }
