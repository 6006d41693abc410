"""The text of a proposed contract, as a person would write it; ruff lays it out and takes unused imports out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from include.contracts.files import Files
from include.local.new_entity.guesses import ChildrenGuess, EntityGuess, FieldGuess, singular
from include.local.new_entity.sample import EndpointGuess, FilesGuess

__all__ = ["contract_text"]

WIDTH = 112
GUESSES = "What a comment asks to confirm is a guess."
IMPORTS = """\
from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AliasPath, BeforeValidator, Field

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Cursor, Endpoint, LinkHeader, NextUrl, Offset, PageNumber, SinglePage
from include.contracts.files import Files
from include.contracts.record import AnyText, Country, Email, Identifier, Money, Record, Timestamp, WholeNumber
from include.contracts.record import blank_to_none, none_to_list
"""
WRITTEN_NUMBER = '''
WrittenNumber = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""A whole number that the file writes as text."""

'''


def contract_text(entity: EntityGuess, source: EndpointGuess | FilesGuess, connection: str, address: str) -> str:
    """The module that declares the entity, whose sample came from `address` (without a query, it may hold secrets)."""
    title = entity.name.replace("_", " ").capitalize()
    said = f"{title}, as {entity.records:,} records of {address} show them."
    body = "".join(_record(child.entity, _class_name(child.table)) for child in entity.children)
    body += _record(entity, _class_name(entity.name), entity.children)
    contract = _contract(entity, source, connection)
    written = WRITTEN_NUMBER if "WrittenNumber" in body else ""
    return f"{_docstring(said)}\n\n{IMPORTS}\n{written}{body}\n\n{contract}"


def _docstring(summary: str) -> str:
    """The module's; a summary that is too long for a line is cut at the address, which has no blanks."""
    if len(summary) <= WIDTH:
        return f'"""{summary}\n\n{GUESSES}\n"""'
    return f'"""{textwrap.fill(summary, WIDTH, break_long_words=True, break_on_hyphens=False)}\n\n{GUESSES}\n"""'


def _class_name(table: str) -> str:
    return "".join(word.capitalize() for word in singular(table).split("_")) + "Record"


def _record(entity: EntityGuess, class_name: str, children: Iterable[ChildrenGuess] = ()) -> str:
    what = singular(entity.name).replace("_", " ")
    article = "An" if what[:1] in "aeiou" else "A"
    lines = [f"class {class_name}(Record):", f'    """{article} {what} as the source sends it."""', ""]
    for field in entity.fields:
        lines += _notes(field.notes, "    ")
        lines.append(f"    {field.name}: {_declaration(field)}")
    for child in children:
        lines.append(f"    {child.field.name}: {_declaration(child.field, _class_name(child.table))}")
    if entity.left_out:
        lines.append("")
    for path, why in entity.left_out:
        lines += _comment(f'left out, "{".".join(path)}": {why}', "    ")
    return "\n\n" + "\n".join(lines) + "\n"


def _declaration(field: FieldGuess, child_class: str = "") -> str:
    """What stands behind the field's name: its annotation and default."""
    source = ""
    if len(field.path) > 1:
        source = f"validation_alias=AliasPath({', '.join(map(_quoted, field.path))})"
    elif field.path[0] != field.name:
        source = f"alias={_quoted(field.path[0])}"
    if field.type in ("list", "children"):
        annotation = f"list[{child_class or 'AnyText'}]"
        if not field.nullable:
            return f"{annotation} = Field({source})" if source else annotation
        arguments = ", ".join(filter(None, ["default_factory=list", source]))
        return f"Annotated[{annotation}, BeforeValidator(none_to_list)] = Field({arguments})"
    kind = f"Literal[{', '.join(map(_quoted, field.choices))}]" if field.type == "Literal" else field.type
    if field.blanks:
        kind = f"Annotated[{kind} | None, BeforeValidator(blank_to_none)]"
    elif field.nullable:
        kind = f"{kind} | None"
    if not field.nullable:
        return f"{kind} = Field({source})" if source else kind
    return f"{kind} = Field(default=None, {source})" if source else f"{kind} = None"


def _contract(entity: EntityGuess, source: EndpointGuess | FilesGuess, connection: str) -> str:
    lines = [
        f"{entity.name.upper()} = Contract(",
        f'    name="{entity.name}",',
        f"    record={_class_name(entity.name)},",
    ]
    lines += _notes(entity.key_notes, "    ")
    lines.append(f"    key={_tuple(entity.key)},")
    lines += _notes(entity.version_notes, "    ")
    lines.append(f"    version={_quoted(entity.version) if entity.version else None},")
    if ignored := _ignored(entity):
        lines.append(f"    ignored={_tuple(ignored)},")
    if entity.deleted:
        lines += _notes(
            (f'whether "{entity.deleted}" marks deleted records; `deleted` then names its field here',), "    "
        )
    if isinstance(source, EndpointGuess):
        lines += [f"    connection={_quoted(connection)},"]
        lines += _notes(
            (
                "every delta_sync reads all of it; where the source can be asked for changes, name its parameter as "
                "the endpoint's `changed_since`, and leave `delta` out",
            ),
            "    ",
        )
        lines += ['    delta="whole",', *_endpoint(source)]
    else:
        lines += _files(source)
    if entity.children:
        lines.append("    children={")
        for child in entity.children:
            lines += _notes(child.entity.key_notes, "        ")
            lines.append(
                f"        {_quoted(child.field.name)}: Children({_quoted(child.table)}, {_class_name(child.table)}, "
                f"parent={_tuple(child.parent)}, key={_tuple(child.entity.key)}),"
            )
        lines.append("    },")
    return "\n".join([*lines, ")", ""])


def _ignored(entity: EntityGuess, prefix: str = "") -> tuple[str, ...]:
    """What of the source's records the contract does not read, so that drift is not warned of it."""
    read = {field.path[0] for field in entity.fields} | {child.field.path[0] for child in entity.children}
    own = [prefix + path[0] for path, _ in entity.left_out if path[0] not in read]
    nested = [name for child in entity.children for name in _ignored(child.entity, ".".join(child.field.path) + ".")]
    return tuple(dict.fromkeys([*own, *nested]))


def _endpoint(source: EndpointGuess) -> Iterator[str]:
    endpoint = source.endpoint
    yield "    endpoint=Endpoint("
    yield f"        {_quoted(endpoint.path)},"
    yield from _notes(source.notes, "        ")
    yield f"        {source.pagination_text},"
    if endpoint.records:
        yield f"        records={_quoted(endpoint.records)},"
    if endpoint.page_size_param:
        yield f"        page_size={endpoint.page_size},"
        yield f"        page_size_param={_quoted(endpoint.page_size_param)},"
    else:
        yield '        page_size_param="",'
    yield "    ),"


def _files(source: FilesGuess) -> Iterator[str]:
    files = source.files
    plain = Files(files.uri, files.format, files.holds)
    yield "    files=Files("
    yield f"        {_quoted(files.uri)},"
    yield f"        format={_quoted(files.format)},"
    yield from _notes(("each file holds the whole entity; if it holds some of it, say increment",), "        ")
    yield f"        holds={_quoted(files.holds)},"
    yield from _notes(source.notes, "        ")
    for name in ("pattern", "encoding", "delimiter"):
        if getattr(files, name) != getattr(plain, name):
            yield f"        {name}={_quoted(getattr(files, name))},"
    yield "    ),"


def _notes(notes: Iterable[str], indent: str) -> Iterator[str]:
    for note in notes:
        yield from _comment(f"confirm: {note}", indent)


def _comment(text: str, indent: str) -> list[str]:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return textwrap.wrap(
        printable, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def _quoted(text: str) -> str:
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else repr(text)


def _tuple(names: tuple[str, ...]) -> str:
    return f"({', '.join(map(_quoted, names))}{',' if len(names) == 1 else ''})"
