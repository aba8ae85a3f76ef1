"""The browsable reference of the contracts: one page a proto file, an index, the error reasons.

Responsible for the pages' form; everything said on them comes from the contracts (`model`)
and from which methods are served (`served`). Links follow the slugs that Markdown viewers
make of headings.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Final

from contracts.model import Contract, Enum, Field, File, Message, Method
from contracts.prose import CODES, Names, cell, first_sentence, paragraphs
from contracts.words import field_words, message_words

FOLDER: Final = "contract"
INDEX: Final = f"{FOLDER}/README.md"
ERRORS: Final = "errors.md"
PERMISSIONS: Final = "permissions.md"
_BEHAVIORS: Final = {
    "REQUIRED": "required",
    "OPTIONAL": "optional",
    "OUTPUT_ONLY": "output",
    "IDENTIFIER": "identifier",
    "IMMUTABLE": "immutable",
    "INPUT_ONLY": "input only",
}
_REASONS: Final = "gridlane.type.v1.ErrorReason"

_INTRODUCTION: Final = """\
# The contract

Every method, message and enum that Gridlane speaks, from the comments and options of
[`protos/gridlane`](../../../protos/gridlane). What holds for all of them (names, request ids,
pages, filters, errors, waiting) is in [conventions](../conventions.md).

* Under each method stands what it takes and gives, the permission that it needs ("on" names the
  field that says what is acted upon; [permissions](../permissions.md) says who has it), and the
  class in which calls are admitted: unary, batch or stream. A full class answers
  RESOURCE_EXHAUSTED, [OVERLOADED](../errors.md#overloaded).
* A field that callers fill is required, optional, output, identifier, immutable or input only:
  [what that means](../conventions.md#creating-changing-deleting). A scalar that is not set is 0,
  false or empty, unless its type says "or unset".
* Limits are checked before anything is done: INVALID_ARGUMENT,
  [INVALID_FIELDS](../errors.md#invalid_fields).
* "Young" at the end of a comment: of what stands under it, not everything is served by this
  version, or it is for the first time. [What may change](../conventions.md#a-call).
* Types of others: `Timestamp` (UTC) and `Duration` of `google.protobuf`, `FieldMask` (names of
  fields, AIP-134), `Struct` (JSON), `Status` of `google.rpc` (a code, a message and details).
"""


def contract_pages(contract: Contract, unserved: Collection[Method]) -> dict[str, str]:
    """All pages by their path below docs/reference, without a notice.

    Parameters:
        unserved: the methods that answer UNIMPLEMENTED.
    """
    writer = _Writer(contract, {method.name for method in unserved})
    pages = {writer.page_of(file.path): writer.page(file) for file in contract.files}
    return {INDEX: writer.index(), ERRORS: writer.errors(), **pages}


def slug(heading: str) -> str:
    """The anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


class _Writer:
    """Writes the pages of one contract."""

    def __init__(self, contract: Contract, unserved: Collection[str]) -> None:
        self._contract = contract
        self._unserved = unserved
        self._targets = dict(self._all_targets())
        self._users = _users(contract)
        self._names = {
            page: self._names_from(page) for page in (*map(self.page_of, self._files()), ERRORS)
        }
        self._names[INDEX] = self._names_from(INDEX)

    def _files(self) -> list[str]:
        return [file.path for file in self._contract.files]

    @staticmethod
    def page_of(path: str) -> str:
        """The page of a proto file."""
        _, package, _, name = path.split("/")
        return f"{FOLDER}/{package}/{name.removesuffix('.proto')}.md"

    def _all_targets(self) -> Iterator[tuple[str, str]]:
        """The page and anchor of every symbol by its full name."""
        for file in self._contract.files:
            page = self.page_of(file.path)
            for symbol in (*file.services, *file.messages, *file.enums):
                heading = symbol.name.removeprefix(f"{file.package}.")
                yield symbol.name, f"{page}#{slug(heading)}"
            for service in file.services:
                for method in service.methods:
                    yield method.name, f"{page}#{slug(_method_heading(method))}"

    def _names_from(self, page: str) -> Names:
        """What comments on a page may name; a short name of its own package goes first."""
        shorts: dict[str, list[str]] = defaultdict(list)
        for name in self._targets:
            shorts[name.rpartition(".")[2]].append(name)
        symbols = {}
        for short, full in shorts.items():
            near = [name for name in full if f"/{name.split('.')[1]}/" in page]
            chosen = near or full
            if len(chosen) == 1:
                symbols[short] = self._link(chosen[0], page)
        for method in self._contract.methods:
            symbols[_method_heading(method)] = self._link(method.name, page)
        reasons = {
            value.word: _relative(f"{ERRORS}#{slug(value.word)}", page)
            for value in self._contract.enums[_REASONS].values
            if value.number
        }
        return Names(symbols, reasons)

    def _link(self, name: str, page: str) -> str:
        return _relative(self._targets[name], page)

    def _named(self, name: str, page: str) -> str:
        """A type or rpc as a link where it has a page, else as code."""
        short = name.rpartition(".")[2]
        return f"[{short}]({self._link(name, page)})" if name in self._targets else f"`{short}`"

    # --- the index -----------------------------------------------------------------------------

    def index(self) -> str:
        return "\n".join((_INTRODUCTION, *self._index_lines()))

    def _index_lines(self) -> Iterator[str]:
        packages: dict[str, list[File]] = defaultdict(list)
        for file in self._contract.files:
            packages[file.package].append(file)
        methods = list(self._contract.methods)
        yield (
            f"{len(packages)} packages, {len(methods)} methods, "
            f"{len(self._contract.messages)} messages, {len(self._contract.enums)} enums. "
            f"This version serves {len(methods) - len(self._unserved)} of the\n"
            "methods; the others say so below, and answer UNIMPLEMENTED.\n"
        )
        for package, files in packages.items():
            yield f"## {package}\n"
            yield from self._nouns(files)
            for file in files:
                for service in file.services:
                    yield f"### {self._named(service.name, INDEX)}\n"
                    yield f"{paragraphs(service.comment, self._names[INDEX])}\n"
                    yield "| method | what it does | permission |\n|---|---|---|"
                    for method in service.methods:
                        yield self._index_row(method)
                    yield ""

    def _nouns(self, files: list[File]) -> Iterator[str]:
        for file in files:
            if not file.services:
                page = self.page_of(file.path)
                noun = posixpath.basename(file.path).removesuffix(".proto")
                shown = [self._named(one.name, INDEX) for one in (*file.messages, *file.enums)]
                link = _relative(page, INDEX)
                yield f"* [{noun.replace('_', ' ')}]({link}): {', '.join(shown) or 'options'}"
        yield ""

    def _index_row(self, method: Method) -> str:
        what = first_sentence(method.comment, self._names[INDEX])
        if method.name in self._unserved:
            what += " *Not in this version.*"
        return _row(self._named(method.name, INDEX), what, f"`{method.permission}`")

    # --- a page --------------------------------------------------------------------------------

    def page(self, file: File) -> str:
        page = self.page_of(file.path)
        lines = [f"# {file.package}, {posixpath.basename(file.path)}\n"]
        index, source = _relative(INDEX, page), f"../../../../protos/{file.path}"
        lines.append(f"[The contract]({index}) · [source]({source})\n")
        for service in file.services:
            lines += [f"## {service.short}\n", paragraphs(service.comment, self._names[page]), ""]
            for method in service.methods:
                lines += self._method(method, page)
        if file.messages:
            lines.append("## All messages\n")
        for message in file.messages:
            lines += self._message(message, file, page)
        if file.enums:
            lines.append("## All enums\n")
        for enum in file.enums:
            lines += self._enum(enum, file, page)
        _refuse_equal_headings(page, lines)
        return "\n".join(lines)

    def _method(self, method: Method, page: str) -> Iterator[str]:
        takes = ("stream of " if method.takes_stream else "") + self._named(method.takes, page)
        gives = ("stream of " if method.gives_stream else "") + self._named(method.gives, page)
        streams = method.takes_stream or method.gives_stream
        admission = (method.admission or ("STREAM" if streams else "UNARY")).lower()
        about = f" on `{method.resource}`" if method.resource else ""
        yield f"### {_method_heading(method)}\n"
        permission = f"permission {self._permission(method, page)}{about}"
        yield f"takes {takes}, gives {gives} · {permission} · {admission}\n"
        if method.name in self._unserved:
            reason = _relative(f"{ERRORS}#not_implemented", page)
            yield f"*Not in this version: UNIMPLEMENTED, [NOT_IMPLEMENTED]({reason}).*\n"
        yield f"{paragraphs(method.comment, self._names[page])}\n"

    def _permission(self, method: Method, page: str) -> str:
        """The permission, with a link to the table that says who has it."""
        table = _relative(f"{PERMISSIONS}#{slug(method.service)}", page)
        return f"[`{method.permission}`]({table})"

    def _message(self, message: Message, file: File, page: str) -> Iterator[str]:
        yield f"### {message.name.removeprefix(f'{file.package}.')}\n"
        yield f"{paragraphs(message.comment, self._names[page])}\n"
        for words in message_words(message):
            yield f"* always: {words}"
        for oneof in sorted(message.required_oneofs):
            yield f"* one of `{oneof}` must be set"
        users = [self._named(name, page) for name in self._users.get(message.name, ())]
        if users:
            yield f"* used by {', '.join(users)}"
        yield ""
        if message.fields:
            yield "| field | type | | meaning | limits |\n|---|---|---|---|---|"
            for field in message.fields:
                yield self._field_row(field, page)
            yield ""

    def _field_row(self, field: Field, page: str) -> str:
        kind = self._named(field.type, page)
        if field.key:
            kind = f"map of `{field.key}` to {kind}"
        elif field.repeated:
            kind = f"list of {kind}"
        elif field.presence:
            kind += " or unset"
        if field.oneof:
            kind += f", one of `{field.oneof}`"
        words = "; ".join(field_words(field)).replace("|", "\\|")
        meaning = cell(field.comment, self._names[page])
        return _row(f"`{field.short}`", kind, _behavior(field), meaning, words)

    def _enum(self, enum: Enum, file: File, page: str) -> Iterator[str]:
        yield f"### {enum.name.removeprefix(f'{file.package}.')}\n"
        yield f"{paragraphs(enum.comment, self._names[page])}\n"
        users = [self._named(name, page) for name in self._users.get(enum.name, ())]
        if users:
            yield f"* used by {', '.join(users)}\n"
        yield "| value | number | meaning |\n|---|---|---|"
        # A word of another vocabulary may look like an error reason: values link to none.
        names = Names(self._names[page].symbols, {})
        is_reason = enum.name == _REASONS
        for value in enum.values:
            word = f"`{value.word}`"
            if is_reason and value.number:
                word = f"[{word}]({self._names[page].reasons[value.word]})"
            yield _row(word, str(value.number), cell(value.comment, names))
        yield ""

    # --- error reasons -------------------------------------------------------------------------

    def errors(self) -> str:
        enum = self._contract.enums[_REASONS]
        names = Names(self._names[ERRORS].symbols, {})
        lines = ["# Error reasons\n", f"{paragraphs(enum.comment, names)}\n"]
        lines.append("What may be retried, and how, is in [conventions](conventions.md#errors).\n")
        by_code: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for value in enum.values:
            code, _, rest = value.comment.partition(".")
            if value.number:
                by_code[code].append((value.word, rest.strip()))
        lines.append("| code | reasons |\n|---|---|")
        for code in sorted(by_code, key=_code_order):
            links = (f"[{word}](#{slug(word)})" for word, _ in by_code[code])
            lines.append(_row(code, ", ".join(links)))
        for code in sorted(by_code, key=_code_order):
            lines.append(f"\n## Code {code}")
            for word, text in by_code[code]:
                lines.append(f"\n### {word}\n\n{paragraphs(text, names)}")
        return "\n".join(lines)


def _users(contract: Contract) -> dict[str, list[str]]:
    """The rpcs and messages in which each message and enum occurs."""
    users: dict[str, list[str]] = defaultdict(list)
    for method in contract.methods:
        for name in dict.fromkeys((method.takes, method.gives)):
            users[name].append(method.name)
    for message in contract.messages.values():
        for name in dict.fromkeys(field.type for field in message.fields):
            if name != message.name:
                users[name].append(message.name)
    return users


def _code_order(code: str) -> int:
    return CODES.index(code) if code in CODES else len(CODES)


def _method_heading(method: Method) -> str:
    return f"{method.service.rpartition('.')[2]}.{method.short}"


def _behavior(field: Field) -> str:
    words = [word for name, word in _BEHAVIORS.items() if name in field.behavior]
    unknown = field.behavior - _BEHAVIORS.keys()
    if unknown:
        raise ValueError(f"{field.name}: no words for {sorted(unknown)}")
    return ", ".join(words)


def _refuse_equal_headings(page: str, lines: list[str]) -> None:
    slugs = Counter(slug(line.lstrip("#").strip()) for line in lines if re.match(r"#{1,4} ", line))
    equal = [name for name, times in slugs.items() if times > 1]
    if equal:
        raise ValueError(f"{page} would have several headings {', '.join(equal)}")


def _relative(target: str, page: str) -> str:
    """The link from a page to a target, both as paths below docs/reference."""
    path, _, anchor = target.partition("#")
    if path == page:
        return f"#{anchor}"
    relative = posixpath.relpath(path, posixpath.dirname(page))
    return f"{relative}#{anchor}" if anchor else relative


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
