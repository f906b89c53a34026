"""Keys: what a secret stands for, and finding it by a keyed hash.  Pure; no secret is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from helexa.accounts.windows import Cap
from helexa.conversation import ANONYMOUS, Principal
from helexa.errors import Forbidden
from helexa.fleet.share import Share

PREFIX = "hx_"  # of every key that helexa makes, so that scanners for leaked secrets know it
SECRET_BYTES = 32
PLAIN_HASH = "sha256:"  # how a hash is written in a configuration


@frozen
class Key:
    """Who shows a key, and what it may do.

    `allowed_models` are ids or aliases, empty for all.  `share` is what it gets of a busy model.
    `expires_at` is Unix time.  `caps` bound this key alone; those of its account are the ledger's to
    know.  A key that `is_revoked` lets nobody in.
    """

    principal: Principal
    caps: tuple[Cap, ...] = ()
    allowed_models: tuple[str, ...] = ()
    share: Share = Share()
    expires_at: float | None = None
    is_revoked: bool = False

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether a model that goes by `names`, its id and its aliases, is among those allowed."""
        return not self.allowed_models or any(name in self.allowed_models for name in names)

    def check_use(self, names: Sequence[str]) -> None:
        """Forbidden for a model that it may not use; `names` begins with the model's id."""
        if not self.may_use(names):
            raise Forbidden(f"This key may not use model {names[0]}.", param="model")

    def opens(self, unix_time: float) -> bool:
        return not self.is_revoked and (self.expires_at is None or unix_time < self.expires_at)


ANONYMOUS_KEY = Key(ANONYMOUS)


@frozen
class Keys:
    """Every key in force, found by its hash; replaced as a whole when anything changes.

    A hash is an HMAC under a secret of this installation, so that neither the store nor the time of a
    look-up tells anything of a key.
    """

    installation: bytes = field(default=b"", repr=False)
    by_hash: Mapping[str, Key] = field(factory=dict, repr=False)

    def find(self, secret: bytes, unix_time: float) -> Key | None:
        """The key that `secret` is, if it is in force.

        Where there never was a key there is none to mistype: whatever is shown stands for nobody.
        """
        if not self.by_hash:
            return ANONYMOUS_KEY
        found = self.by_hash.get(keyed_hash(self.installation, plain_hash(secret)))
        return found if found is not None and found.opens(unix_time) else None

    def caps_of(self, principal: Principal) -> tuple[Cap, ...]:
        """Of the key that is named so; none if it is not in force any more."""
        return self._caps.get(principal, ())

    _caps: Mapping[Principal, tuple[Cap, ...]] = field(init=False, repr=False)

    @_caps.default
    def _caps_by_principal(self) -> Mapping[Principal, tuple[Cap, ...]]:
        return {key.principal: key.caps for key in self.by_hash.values()}


def new_secret() -> str:
    """A new key: `hx_` and 256 random bits in 43 letters, digits, `-` and `_`."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def plain_hash(secret: bytes) -> str:
    """What a configuration may hold instead of a key: `sha256:` and 64 hexadecimal digits."""
    return PLAIN_HASH + hashlib.sha256(secret).hexdigest()


def keyed_hash(installation: bytes, hash: str) -> str:
    """What is stored, and looked up, of a key whose plain hash is `hash`."""
    return hmac.new(installation, hash.encode(), hashlib.sha256).hexdigest()
