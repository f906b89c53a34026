"""helexa: a self-hosted LLM serving stack in one supervised process per host.

The life of one request, and where to read it:

 1  http/server, http/guard   bytes come in at a listener, past its door
 2  http/inference            the route: one request from its bytes to the last byte of its answer
 3  wire/                     one of four dialects becomes a neutral `conversation.Conversation`
 4  gateway                   alias, prompt, length, budget; another node is tried where one fails
 5  library, prompts, text/   chat template in a process (renderers), tokenizer and grammar in threads
 6  accounts/, actors/ledger  room is reserved for what the answer may take, and settled to what it took
 7  actors/fleet              which node answers; what is loaded where, and what leaves for it
 8  nodes/                    the node's port: this host's own (`local`), or one over HTTP (`relay`)
 9  actors/node, places       which model is where on this host; `hosting` runs and supervises them
10  actors/admission          the line before one model: bounded, fair, explained
11  actors/model              one loaded model: its admission, its life
12  actors/generation         one admitted request: sequences out, events back
13  actors/device             Trio's side of a device: orders go in, notices come back
14  engine/                   torch's side: loads, scheduler, sequences, sampling, one thread per device
15  text/answer, text/markup  tokens become text, reasoning and tool calls; stop strings are found
16  wire/                     events become the dialect's bytes, http/stream sends them
17  recorder                  record, metrics and log line, however it ended

Beside that road:

config/    what can be set, and reading it strictly       fleet/    pure decisions and their values
store/     models as files: fetched, checked, prepared    devices/  CUDA driver, NVML, the CPU
control/   the Unix socket that `helexa-ctl` (ctl) asks   clients/  ready configurations for clients
errors     one tree of all that anybody may be told       messages  what is said to the node actor
shelf      the catalogue in force; `reload` renews it     listed    the gateway's list of models
opaque     what passes unread: embeddings, audio, images  here      answers at the node's own listener
responses  what a client may continue by its id           trace     one request's clock and decisions
replacing, formats       files that are replaced whole; directories that carry a version
scripts, actors/script   models whose tokens come from rules
state, desired, records, capture, logs, metrics, service  what outlives a request or the process
serve, listeners, local, front, accounting, verbs         all put together

`tests/test_architecture.py` holds the rules: torch on device threads only, Trio nowhere near it, pure
rooms without I/O, no locks, no module-level state.
"""

__version__ = "0.1.0"
