"""Between conversations and tokens.  Pure but for reading a model's files; only a node loads it.

prompt      Prompter: conversation to prompt, bound to a model's directory, of whose
files       ChatFormat is the small part; length refuses what cannot fit
template    chat templates            chat       what a template reads, in its several forms
sandbox     Jinja that cannot harm    tokenizer  text to ids; decoder: what an id stands for
answer      AnswerReader: tokens to events, by
detokenize  tokens to text as they come, and
stops       stop strings found in it
"""
