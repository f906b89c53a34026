"""A server in the manner of vLLM that costs little and answers at once, for `bench_gateway.py`.

    bench_upstream.py PORT

A request's `max_tokens` is how many chunks a stream has; `seed` how many microseconds lie between
them, 0 for none.  Each chunk tells when it was sent (the monotonic clock, in nanoseconds).
"""

import asyncio
import json
import sys
import time

MODEL = "bench"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%s\r\n\r\n"
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":"%d "},"finish_reason":null}]}\n\n'
)
END = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    b"data: [DONE]\n\n"
)
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
MODELS = json.dumps(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 32768}]}
).encode()
LEAST_WAIT = 0.0005  # seconds that are worth sleeping


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            await answer(head, json.loads(body) if body else {}, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def answer(head: bytes, body: dict[str, object], writer: asyncio.StreamWriter) -> None:
    if body.get("stream"):
        return await stream(writer, int(str(body["max_tokens"])), int(str(body.get("seed") or 0)))
    data = MODELS if head.startswith(b"GET ") else WHOLE
    writer.write(HEAD % (b"application/json", b"content-length: %d" % len(data)) + data)
    await writer.drain()


async def stream(writer: asyncio.StreamWriter, chunks: int, microseconds: int) -> None:
    writer.write(HEAD % (b"text/event-stream", b"transfer-encoding: chunked"))
    due = time.monotonic()
    for _ in range(chunks):
        due += microseconds / 1e6
        wait = due - time.monotonic()
        if wait > LEAST_WAIT:
            await asyncio.sleep(wait)
        write(writer, CHUNK % time.monotonic_ns())
        await writer.drain()
    write(writer, END % (chunks, chunks + 5))
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def main(port: int) -> None:
    server = await asyncio.start_server(serve_one, "127.0.0.1", port, limit=2**20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
