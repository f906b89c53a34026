"""The dialect of OpenAI's completions: requests in, answers out, whole or as a stream."""

from helexa.wire.openai_completions.request import CompletionRequest, read_request

__all__ = ["CompletionRequest", "read_request"]
