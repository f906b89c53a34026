"""The nodes of a fleet as a gateway reaches them: one port for each, wherever the models run.

port      what every node can be asked        asked     one request on its way to a node
local     the node of this process            remote    a helexa or a reference neuron over HTTP
upstream  an OpenAI-style server              admitting a line of ours before one
client    HTTP as all of them use it          endpoint  where a node is, its headers, whom to trust
connection one to a node, and their pool      framing   the bytes of an answer           (pure)
shapes    what nodes tell, read strictly and forgivingly (`told`); `offers`, what servers offer
relay     a request sent to a node, its answer passed through or read; `incoming`, the answer on its way
dialects  a request in a node's words         headers   what of a client's headers goes on, its session
refusals  what nodes refuse                   plausible how much of their usage is believed
probe     a node tried step by step           reasons   why one cannot be reached
"""
