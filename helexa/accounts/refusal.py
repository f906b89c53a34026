"""A budget's refusal in words that no client takes for a context that is too long.  Pure."""

from typing import Any

from helexa.accounts.amount import Amount
from helexa.accounts.book import Refused
from helexa.accounts.provider import Wanted
from helexa.accounts.windows import Meter, Scope, room
from helexa.errors import BudgetExhausted, BudgetHeld, HelexaError, InsufficientQuota


def refusal(refused: Refused, wanted: Wanted) -> HelexaError:
    """What the client is told; only a window that renews itself says when to come back."""
    words = f"{what(refused)}: {asks(refused, wanted)}, and {left(refused)}"
    details = diagnostics(refused)
    if refused.is_held:
        return BudgetHeld(
            f"{words} beside requests under way; some of it comes back when they end",
            retry_after=refused.seconds,
            **details,
        )
    words += shorter(refused, wanted)
    if refused.seconds is None:
        return InsufficientQuota(f"{words}; a person must raise it", **details)
    retry_after = max(1.0, refused.seconds or refused.cap.window.seconds)
    when = f"it renews in {retry_after:.0f} s"
    if not refused.asked.fits(room(Meter(), refused.cap)):
        when = "this request is larger than the whole budget"
    return BudgetExhausted(f"{words}; {when}", retry_after=retry_after, **details)


def shorter(refused: Refused, wanted: Wanted) -> str:
    """What could be asked for instead: who names no length is taken to want the longest answer."""
    spare = refused.room - wanted.prices.at_most(wanted.prompt_tokens, 0)
    each = wanted.prices.at_most(0, wanted.num_answers)
    most = spare.tokens // each.tokens
    if each.pico_usd or spare.pico_usd < 0:
        most = min(most, spare.pico_usd // max(1, each.pico_usd))
    if most <= 0:
        return ""
    return f", enough for {'answers' if wanted.num_answers > 1 else 'an answer'} of up to {most}"


def what(refused: Refused) -> str:
    return f"the budget of {whose(refused.cap.scope)} has no room for this request"


def whose(scope: Scope) -> str:
    return f"key {scope.key_id}" if scope.key_id else f"account {scope.account_id}"


def asks(refused: Refused, wanted: Wanted) -> str:
    """Tokens, as those can be asked for differently; money where that is what lacks."""
    counted = "" if wanted.exact else "about "
    answers = f"{wanted.num_answers} answers of " if wanted.num_answers > 1 else "an answer of "
    may_take = (
        f"it may take {counted}{wanted.prompt_tokens} tokens of prompt and "
        f"{answers}up to {wanted.max_output}"
    )
    return f"{may_take}, at most {usd(refused.asked)}" if lacks_money(refused) else may_take


def left(refused: Refused) -> str:
    if lacks_money(refused):
        return f"{usd(refused.remaining)} of {usd(capped(refused))} remain"
    return f"{refused.remaining.tokens} of {refused.cap.tokens} remain"


def lacks_money(refused: Refused) -> bool:
    return refused.asked.tokens <= refused.remaining.tokens


def capped(refused: Refused) -> Amount:
    return Amount(refused.cap.tokens or 0, refused.cap.pico_usd or 0)


def usd(amount: Amount) -> str:
    return f"{amount.usd:.6f} USD"


def diagnostics(refused: Refused) -> dict[str, Any]:
    """The amounts, for programs."""
    cap = refused.cap
    found: dict[str, Any] = {"scope": cap.scope.kind, "window": cap.window.kind}
    if cap.tokens is not None:
        found |= {
            "cap_tokens": cap.tokens,
            "spent_tokens": refused.spent.tokens,
            "remaining_tokens": refused.remaining.tokens,
            "requested_tokens": refused.asked.tokens,
        }
    if cap.pico_usd is not None:
        found |= {
            "cap_usd": capped(refused).usd,
            "spent_usd": refused.spent.usd,
            "remaining_usd": refused.remaining.usd,
            "requested_usd": refused.asked.usd,
        }
    return found
