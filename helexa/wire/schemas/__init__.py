"""The JSON schemas of what helexa reads and writes, for its own OpenAPI description."""

from helexa.conversation import Json
from helexa.wire.schemas.answers import answer_schemas
from helexa.wire.schemas.chat import chat_schemas
from helexa.wire.schemas.completions import completion_schemas
from helexa.wire.schemas.messages import messages_schemas
from helexa.wire.schemas.models import model_schemas
from helexa.wire.schemas.node import node_schemas
from helexa.wire.schemas.response_objects import response_object_schemas
from helexa.wire.schemas.responses import response_schemas


def schemas() -> dict[str, Json]:
    return {
        **chat_schemas(),
        **completion_schemas(),
        **response_schemas(),
        **response_object_schemas(),
        **messages_schemas(),
        **answer_schemas(),
        **model_schemas(),
        **node_schemas(),
    }
