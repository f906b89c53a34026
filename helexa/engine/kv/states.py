"""What layers keep of one sequence that do not keep every token: sliding windows and recurrent states."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from helexa.engine.kv.spans import BLOCK

SLACK = BLOCK  # tokens that are written behind a window before it is moved to the front again


@define(eq=False)
class Window:
    """The last keys and values [heads, tokens, dim] of one sequence in one sliding layer.

    A token sees itself and the `width - 1` before it.
    """

    width: int
    keys: Tensor | None = None
    values: Tensor | None = None
    end: int = 0  # of what is used of them

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take new ones [heads, count, dim]; gives all that the new tokens see, oldest first."""
        count = keys.shape[1]
        kept = min(self.end, self.width - 1)
        if self.keys is None or self.values is None:
            self.keys, self.values = self._empty(keys), self._empty(values)
        if self.end + count > self.keys.shape[1]:
            old = slice(self.end - kept, self.end)
            past = self.keys[:, old].clone(), self.values[:, old].clone()
            if kept + count > self.keys.shape[1]:
                return self._replace(torch.cat((past[0], keys), 1), torch.cat((past[1], values), 1))
            self.keys[:, :kept], self.values[:, :kept] = past
            self.end = kept
        new = slice(self.end, self.end + count)
        self.keys[:, new], self.values[:, new] = keys, values
        self.end += count
        seen = slice(self.end - count - kept, self.end)
        return self.keys[:, seen], self.values[:, seen]

    def snapshot(self) -> "Window":
        """What the next token sees, and no room for it."""
        if self.keys is None or self.values is None:
            return Window(self.width)
        kept = min(self.end, self.width - 1)
        seen = slice(self.end - kept, self.end)
        return Window(self.width, self.keys[:, seen].clone(), self.values[:, seen].clone(), kept)

    def go_back(self, count: int) -> None:
        """Forget the last `count` tokens of an `append` that were fewer than SLACK.

        What was before them is still all there: it makes room only for what does not fit the slack.
        """
        self.end -= count

    def copy(self) -> "Window":
        """One that another sequence goes on with."""
        if self.keys is None or self.values is None:
            return Window(self.width)
        kept = min(self.end, self.width - 1)
        keys, values = self._empty(self.keys), self._empty(self.values)
        keys[:, :kept] = self.keys[:, self.end - kept : self.end]
        values[:, :kept] = self.values[:, self.end - kept : self.end]
        return Window(self.width, keys, values, kept)

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_empty(like.shape[0], self.width - 1 + SLACK, like.shape[2])

    def _replace(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        self.end = min(self.width - 1, keys.shape[1])
        self.keys[:, : self.end] = keys[:, keys.shape[1] - self.end :]
        self.values[:, : self.end] = values[:, values.shape[1] - self.end :]
        return keys, values


State = Any  # a Window, or transformers' LinearAttentionLayer
States = dict[int, State]  # of one sequence, by the index of the layer


def copied(states: States) -> States:
    """States that another sequence goes on with."""
    return {
        index: state.copy() if isinstance(state, Window) else stacked([state])
        for index, state in states.items()
    }


def snapshot(states: States) -> States:
    """The states as they are now, as small as they can be."""
    return {
        index: state.snapshot() if isinstance(state, Window) else stacked([state])
        for index, state in states.items()
    }


def moved(states: States, device: str) -> States:
    """A snapshot on another device."""
    there = snapshot(states)
    for state in there.values():
        if isinstance(state, Window):
            state.keys = state.keys if state.keys is None else state.keys.to(device)
            state.values = state.values if state.values is None else state.values.to(device)
            continue
        for tensors in (state.conv_states, state.recurrent_states):
            tensors.update({i: t.to(device) for i, t in tensors.items() if t is not None})
        state.device = torch.device(device)
    return there


def num_bytes(states: States) -> int:
    total = 0
    for state in states.values():
        if isinstance(state, Window):
            tensors = [state.keys, state.values]
        else:
            tensors = [*state.conv_states.values(), *state.recurrent_states.values()]
        total += sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return total


def stacked(layers: Sequence[LinearAttentionLayer]) -> LinearAttentionLayer:
    """One layer for sequences that take a step together; the tensors are its own."""
    first = layers[0]
    joined = LinearAttentionLayer(first.number_of_states)
    joined.device, joined.dtype = first.device, first.dtype
    for i in range(first.number_of_states):
        joined.has_previous_state[i] = first.has_previous_state[i]
        joined.conv_kernel_size[i] = first.conv_kernel_size[i]
        if first.is_conv_states_initialized[i]:
            joined.conv_states[i] = torch.cat([layer.conv_states[i] for layer in layers])
            joined.is_conv_states_initialized[i] = True
        if first.is_recurrent_states_initialized[i]:
            joined.recurrent_states[i] = torch.cat([layer.recurrent_states[i] for layer in layers])
            joined.is_recurrent_states_initialized[i] = True
    return joined


def unstack(joined: LinearAttentionLayer, layers: Sequence[LinearAttentionLayer]) -> None:
    """Write the rows of `joined` back to the sequences that they are of."""
    for row, layer in enumerate(layers):
        for i in range(joined.number_of_states):
            if joined.is_conv_states_initialized[i]:
                layer.conv_states[i].copy_(joined.conv_states[i][row : row + 1])
            if joined.is_recurrent_states_initialized[i]:
                layer.recurrent_states[i].copy_(joined.recurrent_states[i][row : row + 1])
