"""Comments of the contracts as Markdown: paragraphs, lists of errors, links to what they name.

Responsible for the text of one comment. Where a symbol's page lies is told to it by `Names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

CODES: Final = (
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "DATA_LOSS",
    "INTERNAL",
)
"""gRPC's codes, as far as Gridlane answers with them."""

_ERROR: Final = re.compile(rf"(?:{'|'.join(CODES)})(?:(?:, | or )[A-Z][A-Z_]+)*: ")
_WHO_MAY: Final = re.compile(r"\bmay(?: call it)?\.$|\balone may\b|^Only \w+.* may call it")
_ITEM: Final = re.compile(r"[*-] ")
_SENTENCE: Final = re.compile(r"(?<=[.;)]) (?=[A-Z])")
_CAMEL: Final = re.compile(
    r"(?<![\w.])(?:[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+(?:\.\w+)?|[A-Z][a-z0-9]+\.[A-Za-z]\w+)(?!\w)"
)
_UPPER: Final = re.compile(
    rf"(?<![\w`])(?:(?P<code>{'|'.join(CODES)})(?=, [A-Z_]+)|[A-Z][A-Z]+(?:_[A-Z]+)*)(?![\w`])"
)


@dataclass(frozen=True)
class Names:
    """Where the things that comments name are explained, as seen from one page.

    Attributes:
        symbols: links of rpcs, messages and enums by their short name, where it is unambiguous.
        reasons: links of error reasons by their word.
    """

    symbols: Mapping[str, str]
    reasons: Mapping[str, str]


def paragraphs(comment: str, names: Names) -> str:
    """A comment as Markdown of its own: its errors and items as a list."""
    blocks: list[str] = []
    for kind, text in _chunks(comment):
        line = _inline(text, names)
        if kind == "text":
            blocks.append(line)
        elif blocks and blocks[-1].startswith("* "):
            blocks[-1] += f"\n* {line}"
        else:
            blocks.append(f"* {line}")
    return "\n\n".join(blocks)


def cell(comment: str, names: Names) -> str:
    """A comment as one cell of a table."""
    return "<br>".join(_inline(text, names) for _, text in _chunks(comment)).replace("|", "\\|")


def first_sentence(comment: str, names: Names) -> str:
    """A comment's first sentence, for a table."""
    text = next((text for _, text in _chunks(comment)), "")
    return _inline(_SENTENCE.split(text)[0], names).replace("|", "\\|")


def _chunks(comment: str) -> Iterator[tuple[str, str]]:
    """The parts of a comment: ("text" | "item", words on one line)."""
    kind, words = "text", ""
    for line in comment.splitlines():
        starts = _ERROR.match(line) or _ITEM.match(line)
        ends = not line or (kind == "item" and words.endswith(".") and line[:1].isupper())
        if words and (starts or ends):
            yield from _split_errors(kind, words)
            kind, words = "text", ""
        if not words:
            kind = "item" if starts else "text"
            line = _ITEM.sub("", line, count=1) if _ITEM.match(line) else line
        words = f"{words} {line}".strip()
    if words:
        yield from _split_errors(kind, words)


def _split_errors(kind: str, words: str) -> Iterator[tuple[str, str]]:
    """Takes the errors out that begin in the middle of a paragraph, and ends the last of them
    where a sentence says who may call."""
    pending = ""
    for sentence in _SENTENCE.split(words):
        is_error = bool(_ERROR.match(sentence))
        if pending and (is_error or (kind == "item" and _WHO_MAY.search(sentence))):
            yield kind, pending
            kind, pending = "item" if is_error else "text", ""
        if is_error:
            kind = "item"
        pending = f"{pending} {sentence}".strip()
    yield kind, pending


def _inline(text: str, names: Names) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        _code(part, names) if part.startswith("`") else _plain(part, names) for part in parts
    )


def _code(part: str, names: Names) -> str:
    link = names.symbols.get(part.strip("`"))
    return f"[{part}]({link})" if link else part


def _plain(part: str, names: Names) -> str:
    part = part.replace("<", "&lt;").replace("*", "\\*")
    part = _CAMEL.sub(lambda found: _linked(found[0], names.symbols), part)
    # A code before its reason is not the reason of the same name.
    return _UPPER.sub(
        lambda found: found[0] if found["code"] else _linked(found[0], names.reasons), part
    )


def _linked(word: str, links: Mapping[str, str]) -> str:
    """A word as a link; "Message.field" links to the message."""
    link = links.get(word) or links.get(word.partition(".")[0])
    return f"[{word}]({link})" if link else word
