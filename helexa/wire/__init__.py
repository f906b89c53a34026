"""Pure codecs: bytes and JSON on one side, the neutral values of `helexa.conversation` on the other.

fields       what a client sent, with its types, ranges and paths
request      what several dialects read alike; sampling, thinking, format: what OpenAI's three do
upstream     what the readers of other servers' answers have alike; logprobs, in both directions
openai_chat  chat completions, both directions: requests, answers, streams
openai_completions  completions of bare texts: requests read, answers and streams written
openai_responses  Responses, both directions, and what is kept of them
anthropic    Messages: requests read, answers and streams written
passing      streams of other servers that pass through, and what they tell in passing
answer       a whole answer, folded from its events
sse          server-sent events, written and read; opaque: what clients carry back unread
form         forms of several parts, read and written
envelope     errors, in the shape of each dialect
models       lists of models; codex: what Codex wants to know of one
openapi      the description that each listener serves of itself; operations, schemas: its words
"""
