"""The configuration: one frozen class per table of `helexa.toml`, every option with its default.

`conf/helexa.toml` states the same options with a sentence each; a test keeps the two equal.
Sizes are in the unit that ends the name (`_mb` = MiB, `_seconds`/`_secs`, `_tokens`, `_bytes`).
"""

from pathlib import Path
from typing import Literal

from attrs import field, frozen

from helexa.accounts.windows import BALANCE, Window
from helexa.config import checks
from helexa.config.checks import Moment, not_negative, positive
from helexa.fleet.share import MAX_WEIGHT, Priority


@frozen
class Server:
    state_dir: str = field(default="", validator=checks.path)
    drain_seconds: float = field(default=30.0, validator=not_negative)
    log_format: Literal["auto", "human", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@frozen
class Gateway:
    enabled: bool = True
    listen: str = field(default="127.0.0.1:31313", validator=checks.listen)
    allow_open: bool = False
    allowed_hosts: tuple[str, ...] = field(default=(), validator=checks.hosts)
    allowed_origins: tuple[str, ...] = field(default=(), validator=checks.origins)
    cors_origins: tuple[str, ...] = field(default=(), validator=checks.origins)
    tls_cert: str = field(default="", validator=checks.path)
    tls_key: str = field(default="", validator=checks.path)


@frozen
class NodeDevice:
    """A card, named by its uuid, that helexa may use only in part or not at all."""

    uuid: str
    enabled: bool = True
    reserve_mb: int = field(default=0, validator=not_negative)


@frozen
class Node:
    enabled: bool = True
    name: str = field(default="local", validator=checks.name)
    listen: str = field(default="127.0.0.1:13131", validator=checks.listen)
    allow_open: bool = False
    allowed_hosts: tuple[str, ...] = field(default=(), validator=checks.hosts)
    allowed_origins: tuple[str, ...] = field(default=(), validator=checks.origins)
    token: str = field(default="", repr=False, validator=checks.token)
    token_hash: str = field(default="", repr=False, validator=checks.secret_hash)
    token_file: str = field(default="", validator=checks.secret_file)
    trusted_peers: tuple[str, ...] = field(default=(), validator=checks.networks)
    tls_cert: str = field(default="", validator=checks.path)
    tls_key: str = field(default="", validator=checks.path)
    allow_sources: tuple[str, ...] = field(default=(), validator=checks.source_patterns)
    memory_mb: int = field(default=0, validator=not_negative)
    devices: tuple[NodeDevice, ...] = ()


@frozen
class Metrics:
    listen: str = field(default="127.0.0.1:31314", validator=checks.listen)
    allow_open: bool = False
    allowed_hosts: tuple[str, ...] = field(default=(), validator=checks.hosts)
    allowed_origins: tuple[str, ...] = field(default=(), validator=checks.origins)
    token: str = field(default="", repr=False, validator=checks.token)
    token_hash: str = field(default="", repr=False, validator=checks.secret_hash)
    token_file: str = field(default="", validator=checks.secret_file)


@frozen
class Control:
    socket: str = field(default="", validator=checks.path)
    group: str = "helexa-admin"


@frozen
class Store:
    dir: str = field(default="", validator=checks.path)
    max_gb: float = field(default=0.0, validator=not_negative)
    min_free_gb: float = field(default=2.0, validator=not_negative)
    hf_token_file: str = field(default="", validator=checks.path)


@frozen
class Models:
    catalogue: str = field(default="", validator=checks.path)
    preload: tuple[str, ...] = field(default=(), validator=checks.model_ids)


@frozen
class Engine:
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int = field(default=0, validator=not_negative)
    batch_width: int = field(default=8, validator=positive)
    prefill_chunk_tokens: int = field(default=256, validator=positive)
    drafts: bool = True


@frozen
class PrefixCache:
    enabled: bool = True
    share: Literal["account", "all"] = "account"
    max_entries: int = field(default=8, validator=not_negative)
    parked_mb: int = field(default=1024, validator=not_negative)


@frozen
class Limits:
    max_prompt_tokens: int = field(default=0, validator=not_negative)
    max_body_mb: float = field(default=32.0, validator=positive)
    max_buffered_mb: float = field(default=256.0, validator=positive)
    max_header_kb: float = field(default=64.0, validator=positive)
    max_headers: int = field(default=100, validator=positive)
    max_connections: int = field(default=1024, validator=positive)
    max_connections_per_address: int = field(default=256, validator=positive)
    idle_body_seconds: float = field(default=30.0, validator=positive)
    write_timeout_seconds: float = field(default=30.0, validator=positive)


@frozen
class Admission:
    max_in_flight: int = field(default=0, validator=not_negative)
    max_queue_depth: int = field(default=8, validator=not_negative)
    max_wait_secs: float = field(default=30.0, validator=positive)
    max_per_principal: int | Literal["auto"] = field(default="auto", validator=checks.count_or_auto)
    stream_open_seconds: float = field(default=2.0, validator=not_negative)


@frozen
class AccountKey:
    """One `[[accounts.keys]]` table; of `key`, `key_hash` and `key_file` it has one."""

    account_id: str = field(validator=checks.principal)
    key_id: str = field(default="", validator=checks.optional_principal)
    key: str = field(default="", repr=False, validator=checks.token)
    key_hash: str = field(default="", repr=False, validator=checks.secret_hash)
    key_file: str = field(default="", validator=checks.secret_file)
    hard_cap: int | None = field(default=None, validator=not_negative)
    hard_cap_usd: float | None = field(default=None, validator=not_negative)
    window: Window = BALANCE
    expires_at: Moment | None = None
    allowed_models: tuple[str, ...] = field(default=(), validator=checks.model_ids)
    weight: int = field(default=1, validator=checks.between(1, MAX_WEIGHT))
    priority: Priority = "interactive"


@frozen
class AccountLimit:
    """One `[[accounts.limits]]` table: what all keys of an account may spend together."""

    account_id: str = field(validator=checks.principal)
    hard_cap: int | None = field(default=None, validator=not_negative)
    hard_cap_usd: float | None = field(default=None, validator=not_negative)
    window: Window = BALANCE


@frozen
class Accounts:
    require_auth: bool = False
    ledger: str = field(default="", validator=checks.path)
    retention_days: float = field(default=90.0, validator=not_negative)
    keys: tuple[AccountKey, ...] = ()
    limits: tuple[AccountLimit, ...] = ()


@frozen
class Fleet:
    max_load_waiters: int = field(default=64, validator=not_negative)
    load_wait_secs: float = field(default=600.0, validator=positive)
    poll_seconds: float = field(default=2.0, validator=positive)


@frozen
class Eviction:
    strategy: Literal["lru", "priority"] = "lru"
    turn_seconds: float = field(default=20.0, validator=not_negative)
    defrag_after_cycles: int = field(default=50, validator=not_negative)


@frozen
class RemoteNode:
    """One `[[nodes]]` table: a host of the fleet beside this one.

    `endpoint` is a URL without a path, or with the prefix that a proxy put it under.
    """

    name: str = field(validator=checks.name)
    endpoint: str = field(validator=checks.url)
    kind: Literal["helexa", "neuron", "openai"] = "helexa"
    token: str = field(default="", repr=False, validator=checks.token)
    token_file: str = field(default="", validator=checks.secret_file)
    tls_ca: str = field(default="", validator=checks.path)
    inference_endpoints: tuple[str, ...] = field(default=(), validator=checks.urls)
    models: tuple[str, ...] = field(default=(), validator=checks.model_ids)
    max_in_flight: int = field(default=0, validator=not_negative)
    dialects: tuple[Literal["chat", "completions", "responses", "messages"], ...] = ()


@frozen
class Config:
    """Everything one process is told, made once and passed down."""

    server: Server = Server()
    gateway: Gateway = Gateway()
    node: Node = Node()
    metrics: Metrics = Metrics()
    control: Control = Control()
    store: Store = Store()
    models: Models = Models()
    engine: Engine = Engine()
    prefix_cache: PrefixCache = PrefixCache()
    limits: Limits = Limits()
    admission: Admission = Admission()
    accounts: Accounts = Accounts()
    fleet: Fleet = Fleet()
    eviction: Eviction = Eviction()
    nodes: tuple[RemoteNode, ...] = ()


@frozen
class Places:
    """Where this process keeps its things, all absolute."""

    state_dir: Path
    store_dir: Path
    socket: Path
