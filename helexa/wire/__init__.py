"""Pure codecs: bytes and JSON on one side, the neutral values of `helexa.conversation` on the other.

fields       what a client sent, with its types, ranges and paths
openai_chat  chat completions, both directions: requests, answers, streams
answer       a whole answer, folded from its events
sse          server-sent events, written and read
envelope     errors
models       lists of models
openapi      the description that each listener serves of itself; schemas: its shapes
"""
