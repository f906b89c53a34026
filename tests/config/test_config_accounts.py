"""`[accounts]`: keys and budgets as a file states them, and what of it cannot be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.accounts.configured import configured_keys, configured_limits
from helexa.accounts.keys import Key, Keys, plain_hash
from helexa.accounts.windows import Cap, Scope, Window
from helexa.config.read import config_warnings
from helexa.config.schema import Config
from helexa.conversation import Principal
from helexa.fleet.share import Share

Read = Callable[..., Config]
Mistakes = Callable[..., list[str]]

HASH = plain_hash(b"s3cret")
GPU = '[[nodes]]\nname = "gpu"\nendpoint = "http://gpu.lan:13131"\n'
KEY = '[[accounts.keys]]\nkey = "sk-0123456789abcdef"\naccount_id = "lab"\n'


def keys_of(read: Read, text: str, environ: dict[str, str] | None = None) -> Keys:
    return Keys(b"x", configured_keys(read(text, environ).accounts, b"x"))


def test_a_key_says_all_that_its_holder_may(read: Read) -> None:
    text = (
        KEY + 'key_id = "ann"\nhard_cap = 100\nhard_cap_usd = 0.5\n'
        'window = { kind = "rolling", seconds = 60 }\nexpires_at = 2030-01-31\n'
        'allowed_models = ["demo"]\nweight = 3\npriority = "batch"\n'
    )
    scope, window = Scope("lab", "ann"), Window("rolling", 60)
    assert keys_of(read, text).find(b"sk-0123456789abcdef", 0.0) == Key(
        Principal("lab", "ann"),
        (Cap(scope, window, 100, 5 * 10**11),),
        ("demo",),
        Share(3, "batch"),
        1896048000.0,
    )


def test_a_key_without_an_id_is_called_as_its_account(read: Read) -> None:
    found = keys_of(read, KEY).find(b"sk-0123456789abcdef", 0.0)
    assert found == Key(Principal("lab", "lab"))


@pytest.mark.parametrize(
    "moment", ["2030-01-31T00:00:00Z", '"2030-01-31"', '"2030-01-31T01:00+01:00"']
)
def test_a_moment_may_be_written_as_toml_or_as_text(read: Read, moment: str) -> None:
    (key,) = read(KEY + f"expires_at = {moment}\n").accounts.keys
    assert key.expires_at == 1896048000.0


def test_a_file_may_hold_the_hash_alone(read: Read) -> None:
    hashed = plain_hash(b"sk-secret")
    keys = keys_of(read, f'[[accounts.keys]]\nkey_hash = "{hashed}"\naccount_id = "lab"\n')
    assert keys.find(b"sk-secret", 0.0) is not None


def test_a_key_may_lie_in_a_file_or_come_from_systemd(read: Read, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-of-a-file\n")
    text = '[[accounts.keys]]\naccount_id = "lab"\nkey_file = '
    assert keys_of(read, f'{text}"{tmp_path}/key"').find(b"sk-of-a-file", 0.0) is not None
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert keys_of(read, f'{text}"credential:key"', environ).find(b"sk-of-a-file", 0.0) is not None


def test_a_token_may_lie_in_a_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert read(f'[node]\ntoken_file = "{tmp_path}/token"').node.token == "s3cret"
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read('[metrics]\ntoken_file = "credential:token"', environ).metrics.token == "s3cret"


def test_of_a_token_that_is_only_accepted_the_hash_is_enough(read: Read) -> None:
    config = read(f'[node]\nlisten = "0.0.0.0:13131"\ntoken_hash = "{HASH}"')
    assert (config.node.token, config.node.token_hash) == ("", HASH)
    assert HASH not in repr(config)


def test_several_secrets_may_be_one_key(read: Read) -> None:
    keys = keys_of(read, KEY + KEY.replace("0123", "4567"))
    assert {key.principal for key in keys.by_hash.values()} == {Principal("lab", "lab")}


def test_an_account_may_have_several_budgets(read: Read) -> None:
    text = (
        '[[accounts.limits]]\naccount_id = "lab"\nhard_cap = 100\n'
        '[[accounts.limits]]\naccount_id = "lab"\nhard_cap_usd = 1\n'
        'window = { kind = "sliding", seconds = 60 }\n'
    )
    assert configured_limits(read(text).accounts) == {
        "lab": (
            Cap(Scope("lab"), tokens=100),
            Cap(Scope("lab"), Window("sliding", 60), pico_usd=10**12),
        )
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[accounts.keys]]\naccount_id = "lab"', "needs one of key, key_hash and key_file"),
        (KEY + f'key_hash = "{plain_hash(b"x")}"', "needs one of key, key_hash and key_file"),
        ('[[accounts.keys]]\naccount_id = "lab"\nkey_hash = "abc"', 'expected "sha256:"'),
        ('[[accounts.keys]]\naccount_id = "lab"\nkey_file = "/nowhere"', "cannot be read"),
        (KEY.replace("lab", "anonymous"), "is the account of who has no key"),
        (KEY.replace("lab", "a b"), "printable ASCII"),
        (KEY + KEY.replace("lab", "home"), "has the secret of another key too"),
        (KEY + KEY.replace("0123", "4567") + "hard_cap = 5", "give it a key_id"),
        (KEY + 'window = { kind = "rolling" }', "seconds = N"),
        (KEY + 'window = { kind = "weekly", seconds = 1 }', 'one of "balance", "rolling"'),
        (KEY + "expires_at = 5", "expected a date or a time"),
        (KEY + "weight = 0", "expected a number from 1 to 1000"),
        (KEY + "hard_cap = -1", "expected 0 or a number above it"),
        ('[[accounts.limits]]\naccount_id = "lab"', "bounds nothing"),
        ('[node]\ntoken = "a"\ntoken_file = "/nowhere"', "node.token_file: stands beside token"),
        (f'[node]\ntoken = "a"\ntoken_hash = "{HASH}"', "node.token_hash: stands beside token"),
        (f'[metrics]\ntoken_hash = "{HASH}"\ntoken_file = "/x"', "stands beside token_hash"),
        ('[metrics]\ntoken_hash = "abc"', 'metrics.token_hash: expected "sha256:"'),
        (GPU + f'token_hash = "{HASH}"', "nodes[0].token_hash"),
        ('[gateway]\nlisten = "0.0.0.0:1"', "set accounts.require_auth"),
    ],
)
def test_what_cannot_be_is_told_and_never_the_secret(
    mistakes: Mistakes, text: str, said: str
) -> None:
    told = mistakes(text)
    assert any(said in one for one in told), told
    assert not any("sk-0123456789abcdef" in one for one in told)


def test_a_gateway_that_wants_keys_may_be_reached_by_others(read: Read) -> None:
    config = read('[gateway]\nlisten = "0.0.0.0:31313"\n[accounts]\nrequire_auth = true')
    assert config.gateway.listen == "0.0.0.0:31313"


def test_budgets_beside_an_open_door_are_a_warning(read: Read, tmp_path: Path) -> None:
    def warnings(text: str) -> str:
        file = tmp_path / "helexa.toml"
        config = read(text)
        file.chmod(0o600)
        return "; ".join(config_warnings(file, config))

    capped = KEY + "hard_cap = 5\n"
    assert "who leaves the key out has none" in warnings(capped)
    assert warnings(capped + "[accounts]\nrequire_auth = true") == ""
    bounded = '[[accounts.limits]]\naccount_id = "anonymous"\nhard_cap = 5\n'
    assert warnings(capped + bounded) == ""
    assert "short enough to be guessed" in warnings(KEY.replace("0123456789abcdef", "1"))


def test_a_file_with_keys_that_others_may_read_is_a_warning(read: Read, tmp_path: Path) -> None:
    config = read(KEY)
    (tmp_path / "helexa.toml").chmod(0o644)
    (told,) = config_warnings(tmp_path / "helexa.toml", config)
    assert "chmod 600" in told


def test_a_key_in_a_file_that_everybody_may_read_is_a_warning(read: Read, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-0123456789abcdef")
    config = read(f'[[accounts.keys]]\naccount_id = "lab"\nkey_file = "{key}"\n')
    key.chmod(0o644)
    (told,) = config_warnings(tmp_path / "helexa.toml", config)
    assert told.startswith(f"{key} holds a secret")
    key.chmod(0o640)  # as of root, for the group of a service
    assert config_warnings(tmp_path / "helexa.toml", config) == []


def test_no_secret_shows_in_the_repr_of_a_configuration(read: Read) -> None:
    assert "sk-0123456789abcdef" not in repr(read(KEY))
