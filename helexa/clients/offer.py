"""What a gateway offers to a client: its address and its models with their real limits."""

from collections.abc import Sequence

from attrs import frozen

from helexa.conversation import Json
from helexa.errors import HelexaError
from helexa.escape import escape

KEY_VARIABLE = "HELEXA_API_KEY"


@frozen
class Model:
    """One model as a client should see it; the limits are in tokens, the prices in USD per million.

    `codex` is its entry in the list that Codex reads, as the gateway wrote it.
    """

    id: str
    context: int
    input: int
    output: int
    tools: bool
    reasoning: bool
    cost_input: float = 0.0
    cost_output: float = 0.0
    codex: Json = None


@frozen
class Offer:
    """`url` is the gateway's, without a path.  `small` takes the little calls (titles and the like);
    it is the chosen model itself unless somebody says otherwise, so that they cause no swap."""

    url: str
    models: tuple[Model, ...]
    model: Model
    small: Model

    @property
    def api(self) -> str:
        """Where the OpenAI-style paths begin."""
        return f"{self.url}/v1"


@frozen
class File:
    """`path` is where the client looks for it; `text` is what stands in it."""

    path: str
    text: str


@frozen
class ClientConfig:
    """Files for one client, and what to do beside putting them there."""

    files: tuple[File, ...]
    notes: tuple[str, ...] = ()


def read_models(listing: Json) -> tuple[Model, ...]:
    """The models of GET /v1/models whose limits are known; others cannot be configured honestly."""
    try:
        codex = {entry.get("slug"): entry for entry in listing.get("models") or ()}
        return tuple(
            read_model(entry, codex.get(entry["id"]))
            for entry in listing["data"]
            if entry.get("limit")
        )
    except (AttributeError, KeyError, TypeError):
        raise HelexaError("The gateway's list of models cannot be read: is it a helexa?") from None


def read_model(entry: Json, codex: Json = None) -> Model:
    limit, cost = entry["limit"], entry.get("cost") or {}
    return Model(
        id=entry["id"],
        context=limit["context"],
        input=limit["input"],
        output=limit["output"],
        tools=True,  # a template without tools gets the generic preamble
        reasoning=bool(entry.get("reasoning")),
        cost_input=cost.get("input", 0.0),
        cost_output=cost.get("output", 0.0),
        codex=codex,
    )


def choose(url: str, models: Sequence[Model], model: str | None, small: str | None) -> Offer:
    """The offer for the named model, or for the first.  HelexaError lists what there is."""
    if not models:
        raise HelexaError(
            "The gateway lists no model whose limits are known: add one to the catalogue, "
            "and fetch its files with `helexa models add`."
        )
    chosen = find(models, model) if model else models[0]
    return Offer(
        url.rstrip("/").removesuffix("/v1"),
        tuple(models),
        chosen,
        find(models, small) if small else chosen,
    )


def find(models: Sequence[Model], name: str) -> Model:
    for model in models:
        if model.id == name:
            return model
    listed = ", ".join(escape(model.id) for model in models)
    raise HelexaError(f"The gateway lists no model {escape(name)} with known limits, but: {listed}")
