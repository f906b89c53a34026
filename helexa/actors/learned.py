"""What a node learned of its models: how fast each reads a prompt, and what bounded its context last."""

from attrs import define, field

from helexa.fleet.limits import PrefillRate, Terms, settled


@define(eq=False)
class Learned:
    """By the model's id; it outlives the model's loads, and not the process."""

    _rates: dict[str, PrefillRate] = field(factory=dict)
    _terms: dict[str, Terms] = field(factory=dict)

    def rate(self, model: str) -> PrefillRate:
        return self._rates.get(model, PrefillRate())

    def prefilled(self, model: str, tokens: int, seconds: float) -> None:
        """So many tokens of a prompt were computed in so many seconds."""
        self._rates[model] = self.rate(model).after(tokens, seconds)

    def promise(self, model: str, terms: Terms) -> None:
        """The model is loaded on these terms, and keeps them as long as it is."""
        self._terms[model] = terms

    def last(self, model: str, stated: Terms) -> Terms | None:
        """The last terms, if the operator and the files still say the same."""
        terms = self._terms.get(model)
        return terms if terms is not None and terms.stated == stated else None

    def estimate(self, model: str, now: Terms) -> Terms:
        """What a model shows that is not loaded, where a load would now find the terms `now`."""
        terms = self._terms[model] = settled(self._terms.get(model), now)
        return terms
