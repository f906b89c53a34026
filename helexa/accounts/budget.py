"""What somebody may spend, as people state it."""

from attrs import frozen

from helexa.accounts.amount import pico_usd
from helexa.accounts.windows import BALANCE, Cap, Scope, Window


@frozen
class Budget:
    """Tokens, USD, or both, within one window; None is no bound."""

    hard_cap: int | None = None
    hard_cap_usd: float | None = None
    window: Window = BALANCE

    def caps(self, scope: Scope) -> tuple[Cap, ...]:
        if self.hard_cap is None and self.hard_cap_usd is None:
            return ()
        money = None if self.hard_cap_usd is None else pico_usd(self.hard_cap_usd)
        return (Cap(scope, self.window, self.hard_cap, money),)


UNBOUNDED = Budget()
