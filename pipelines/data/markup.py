"""reStructuredText and Markdown as readable Markdown: prose, headings and code stay, instructions to a renderer go."""

import re
from collections.abc import Callable
from dataclasses import replace

from pipelines.core.records import Document

# Directives whose body is text for the reader; the body of any other one goes with it.
_TEXT_DIRECTIVES = frozenset(
    """
    note warning tip hint important caution danger attention seealso admonition topic sidebar rubric epigraph pull-quote
    container glossary math deprecated versionadded versionchanged versionremoved class method function attribute data
    exception module classmethod staticmethod describe option setting templatetag templatefilter fieldlookup
    django-admin django-admin-option console py:class py:function py:method
    """.split()  # noqa: SIM905 - a list literal of forty quoted words reads worse
)
_CODE_DIRECTIVES = frozenset(("code", "code-block", "sourcecode", "parsed-literal", "testcode", "doctest", "prompt"))
_DIRECTIVE = re.compile(r"^(\s*)\.\.\s+(?:\|[^|]+\|\s+)?([\w:+.-]+?)::\s*(.*)$")
_EXPLICIT = re.compile(r"^(\s*)\.\.(?:\s|$)")  # a comment, target, footnote or substitution
_HEADER_FIELDS = re.compile(r"\A(?:\s*\n)*(?:\.\..*\n|\s*\n)*(?::[\w -]+:.*\n)+")  # file metadata above the title
_OPTION = re.compile(r"^\s*:[\w -]+:(?:\s|$)")
_UNDERLINE = re.compile(r"""^([=\-~^"'`+*#.:_<>])\1{2,}\s*$""")
_ROLE_WITH_TARGET = re.compile(r":[\w:+.-]+:`!?([^`<]*?)\s*<[^`>]*>`")
_ROLE = re.compile(r":[\w:+.-]+:`[~!]?([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`__?")
_REFERENCE = re.compile(r"`([^`]+)`__?(?!\w)")
_LITERAL = re.compile(r"``([^`]+)``")
_LOOKS_LIKE_RST = re.compile(r"^\s*\.\. [\w:|-]+|^[=~^-]{4,}\s*$|:[a-z:]+:`", re.MULTILINE)

_HTML_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_MARKDOWN_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?:[^()\s]|\([^)]*\))+(?:\s+\"[^\"]*\")?\)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block_end(lines: list[str], start: int, indent: int) -> int:
    """The line after the block that is indented deeper than `indent` and begins at or after `start`."""
    end = start
    for number in range(start, len(lines)):
        if lines[number].strip():
            if _indent(lines[number]) <= indent:
                break
            end = number + 1
    return end


def _inline(line: str) -> str:
    line = _ROLE_WITH_TARGET.sub(r"\1", line)
    line = _ROLE.sub(r"`\1`", line)
    line = _LINK.sub(r"\1", line)
    line = _LITERAL.sub(r"`\1`", line)
    return _REFERENCE.sub(lambda match: match[1] if match[0].endswith("_") else match[0], line)


def _fenced(lines: list[str]) -> list[str]:
    while lines and not lines[0].strip():
        lines = lines[1:]
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    return ["", "```", *(line[margin:] for line in lines), "```", ""] if lines else []


def _is_heading(lines: list[str], number: int) -> bool:
    if number + 1 >= len(lines) or not lines[number].strip() or lines[number][0].isspace():
        return False
    return (
        bool(_UNDERLINE.match(lines[number + 1])) and len(lines[number + 1].rstrip()) >= len(lines[number].rstrip()) - 1
    )


def rst_to_markdown(text: str) -> str:
    """The readable part of a reStructuredText file."""
    lines = _HEADER_FIELDS.sub("", text.expandtabs(4)).split("\n")
    out: list[str] = []
    levels: list[tuple[str, bool]] = []  # underline character and whether there is an overline, outermost first
    number = 0
    while number < len(lines):
        line = lines[number]
        overline = (
            bool(_UNDERLINE.match(line))
            and number + 2 < len(lines)
            and lines[number + 2].rstrip() == line.rstrip()
            and bool(lines[number + 1].strip())
        )
        if overline:
            number += 1
            line = lines[number].strip()
        if overline or _is_heading(lines, number):
            style = (lines[number + 1][0], overline)
            if style not in levels:
                levels.append(style)
            out.append(f"{'#' * min(levels.index(style) + 1, 6)} {_inline(line.strip())}")
            number += 2
        elif directive := _DIRECTIVE.match(line):
            end = _block_end(lines, number + 1, _indent(line))
            out += _directive(directive[2].lower(), directive[3], lines[number + 1 : end])
            number = end
        elif _EXPLICIT.match(line):
            number = _block_end(lines, number + 1, _indent(line))
        elif line.rstrip().endswith("::"):
            lead = line.rstrip()[:-1] if line.strip() != "::" else ""
            end = _block_end(lines, number + 1, _indent(line))
            out += ([_inline(lead)] if lead else []) + _fenced(lines[number + 1 : end])
            number = max(end, number + 1)
        else:
            out.append(_inline(line))
            number += 1
    return "\n".join(out)


def _directive(name: str, argument: str, body: list[str]) -> list[str]:
    while body and _OPTION.match(body[0]):
        body = body[1:]
    if name in _CODE_DIRECTIVES:
        return _fenced(body)
    if name not in _TEXT_DIRECTIVES:
        return []
    margin = min((_indent(line) for line in body if line.strip()), default=0)
    inner = rst_to_markdown("\n".join(line[margin:] for line in body))
    return [_inline(argument), inner, ""] if argument else [inner, ""]


def clean_markdown(text: str) -> str:
    """Markdown without front matter, HTML comments, images and link targets."""
    text = _HTML_COMMENT.sub("", _FRONT_MATTER.sub("", text))
    return _MARKDOWN_LINK.sub(r"\1", _IMAGE.sub("", text))


def clean_markup(document: Document) -> Document:
    """Clean by the document's format; a .txt file counts as reStructuredText when it looks like it."""
    kind = document.metadata.get("format")
    if kind == "text" and len(_LOOKS_LIKE_RST.findall(document.text)) >= 3:
        kind = "rst"
    cleaners: dict[str, Callable[[str], str]] = {
        "rst": rst_to_markdown,
        "markdown": clean_markdown,
        "html": clean_markdown,
    }
    cleaner = cleaners.get(str(kind))
    return replace(document, text=cleaner(document.text)) if cleaner else document
