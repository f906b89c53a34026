"""helexa: a self-hosted LLM serving stack in one supervised process per host.

The life of one request, and where to read it:

 1  http/server, http/guard   bytes come in at a listener, past its door
 2  http/chat                 the route: one request from its bytes to the last byte of its answer
 3  wire/openai_chat          the dialect becomes a neutral `conversation.Conversation`
 4  gateway                   alias, prompt, length; sees to it that the model is loaded
 5  library, prompters, text/ chat template and tokenizer, in worker threads
 6  actors/node               which model is where on this host, and its supervision
 7  actors/admission          the line before one model: bounded, fair, explained
 8  actors/model              one loaded model: sequences out, events back
 9  actors/device             Trio's side of a device: orders go in, notices come back
10  engine/                   torch's side: loads, scheduler, sequences, sampling, one thread per device
11  text/answer               tokens become text again, stop strings are found
12  wire/openai_chat          events become the dialect's bytes, http/stream sends them
13  recorder                  record, metrics and log line, however it ended

Beside that road:

config/    what can be set, and reading it strictly       fleet/    pure decisions and their values
store/     models as files: fetched, checked, prepared    devices/  CUDA driver, NVML, the CPU
control/   the Unix socket that `helexa-ctl` (ctl) asks   serve, local   the process put together
state, desired, records, capture, logs, metrics, service  what outlives a request or the process

`tests/test_architecture.py` holds the rules: torch on device threads only, Trio nowhere near it, pure
rooms without I/O, no locks, no module-level state.
"""

__version__ = "0.1.0"
