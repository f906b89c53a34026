"""Between conversations and tokens.  Pure but for reading a model's files; only a node loads it.

prompter    conversation to prompt, bound to a model's directory, of whose
files       ChatFormat is the small part; length refuses what cannot fit
template    what a chat template is asked; chat: what it reads, strict: what some insist on
render      does it, in a process that may be killed (`helexa.renderers`)
source      what is seen in a template without running it
tokenizer   text to ids; decoder: what an id stands for
answer      AnswerReader: tokens to events, by
detokenize  tokens to text as they come,  stops    stop strings found in it,
markup/     calls and reasoning found in it, and   scores   log-probabilities that wait for it
"""
