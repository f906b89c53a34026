"""The engine: what runs on a device thread.  Torch lives here; Trio does not.

orders      the seam: orders in, notices out; no torch
worker      what a device thread drives: the loads and models of one device
batch       one loaded model and the sequences on it
admit       what it takes in      faults   what goes wrong with one sequence alone
scheduler   pure: what one step computes; no torch      pace   how long steps take, as measured
draft       pure: how a text may go on, and when it is worth guessing
planning    a plan carried out      drawing   what was drawn taken in      lives   what each sequence holds
kv/         what is computed once and kept: the pool, prefixes, windows and states, attention over them
lean/       a forward of few operations      quant/   packed weights
room        the pool of a model and what computes on it, batched if the model can be
kept_trial  what its first load tried, for the next      remembered   small files of what was found out
runner      computes a plan's chunks in one pass
sequence    one generation: its tokens and how far they are computed
sampler     the next tokens from logits      form   which tokens may be drawn at all
filters     temperature to min-p, and drawing      penalties   with logit bias      rows   of a batch
loader      a model from its directory onto the device
stream      weights in slices      checkpoint, gguf_tensors   out of which files
verdict     whether nothing lacks
skeleton    a model without weights
torch_setup the thread's settings
convert     GGUF into files that transformers loads, in the store's child process
"""
