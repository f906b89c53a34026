"""Answers held to a form: JSON by a schema, a pattern, a grammar, or a call of a tool.

wanted    what a conversation demands of its answer; the grammar of it in the model's own markup
schema    a JSON schema in a grammar     bounds    how large and deep what a client sends may be
forms     how each format writes a call  arguments what stands between its marks
harmony   the same for gpt-oss           rules     the notation
trial     a child process tries each grammar first; `probe` is what it runs
compiler  grammars compiled for one tokeniser, and remembered; `vocabulary` is its tokens
matcher   one sequence on its way through a grammar; `closers` bring it to an end in time
budget    reasoning that is closed when it has taken its tokens, with a form or without
"""

from helexa.text.constraint.budget import bounded
from helexa.text.constraint.matcher import Constraint, Matcher
from helexa.text.constraint.wanted import compile_constraint

__all__ = ["Constraint", "Matcher", "bounded", "compile_constraint"]
