"""Mistakes in words: each with its place, and with what may have been meant by an unknown name."""

from collections.abc import Iterable

import attrs

from helexa.config.document import Document
from helexa.config.rules import nearest
from helexa.config.structure import Mistake, Unknown


def tell(document: Document, found: Iterable[Mistake], kind: type) -> list[str]:
    """What is wrong with a document that should be of `kind`, in the order of its lines."""
    hinted = [attrs.evolve(one, text=one.text + hint(one, kind)) for one in found]
    return [document.show(one) for one in sorted(hinted, key=document.order)]


def hint(mistake: Mistake, kind: type) -> str:
    """What may have been meant by an unknown name."""
    if not isinstance(mistake, Unknown):
        return ""
    name = str(mistake.path[-1])
    homes = [section for section, options in tables(kind).items() if name in options]
    if homes:
        return f"; it belongs in [{'], ['.join(homes)}]"
    return nearest(name, mistake.known)


def tables(kind: type) -> dict[str, tuple[str, ...]]:
    """The options of each table of `kind`."""
    return {
        section.name: tuple(option.name for option in attrs.fields(section.type))
        for section in attrs.fields(kind)
        if attrs.has(section.type)
    }
