"""Stop strings found in a text that comes in pieces, in time linear in the text."""

from collections import deque
from collections.abc import Iterable


class Automaton:
    """Aho and Corasick's: a state is the longest beginning of a stop string that the text ends with.

    State 0 is the empty one.  Not changed once it is made.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.depth = [0]  # characters of a state
        self.ending = [0]  # characters of the longest stop string that ends with it, 0 without
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]  # the next shorter beginning that the text ends with
        for stop in stops:
            self._add(stop)
        self._link()
        self.first = frozenset(self._next[0])

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._fallback.append(0)
                self.depth.append(self.depth[state] + 1)
                self.ending.append(0)
            state = self._next[state][character]
        self.ending[state] = len(stop)

    def _link(self) -> None:
        """Breadth first: what a state falls back to is shorter, so it is linked already."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for character, after in self._next[state].items():
                self._fallback[after] = self.step(self._fallback[state], character)
                self.ending[after] = self.ending[after] or self.ending[self._fallback[after]]
                waiting.append(after)

    def step(self, state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)


class StopMatcher:
    """Lets text through up to the first stop string, which is the one that is complete first.

    Of several that end at the same character the longest counts.  How the text is cut into pieces
    makes no difference.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stopped: str | None = None
        self._automaton = Automaton(stops)
        self._state = 0
        self._held = ""  # the text of the state: what may yet become a stop string

    def push(self, text: str) -> tuple[str, str | None]:
        """What of the text so far is certain, and the stop string once there is one."""
        if self.stopped is not None:
            return "", self.stopped
        if not self._held and self._automaton.first.isdisjoint(text):
            return text, None
        return self._match(text)

    def finish(self) -> str:
        """What was held back, as no stop string came of it."""
        held, self._held = self._held, ""
        return held

    def _match(self, text: str) -> tuple[str, str | None]:
        automaton, whole, state = self._automaton, self._held + text, self._state
        for i in range(len(self._held), len(whole)):
            state = automaton.step(state, whole[i])
            if length := automaton.ending[state]:
                begin = i + 1 - length
                self.stopped, self._held = whole[begin : i + 1], ""
                return whole[:begin], self.stopped
        certain = len(whole) - automaton.depth[state]
        self._state, self._held = state, whole[certain:]
        return whole[:certain], None
