"""The pages in one HTML file that needs nothing else: pictures inline, no network.

It understands the Markdown that `studies.analysis.pages` writes, not all of Markdown.
"""

import base64
import re
from collections.abc import Callable, Iterator
from html import escape
from itertools import groupby
from pathlib import Path

_STYLE = """\
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #222; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .75rem; }
article { border-top: 1px solid #ccc; margin-top: 3rem; }
img { display: block; height: auto; max-width: 100%; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left;
  vertical-align: top; }
th { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
td:not(.number) { min-width: 5rem; }
td:first-child:not(.number) { min-width: 12rem; }
code, pre { background: #f4f4f4; font-size: .875rem; }
pre { overflow-x: auto; padding: .75rem; }
a { color: #0057ae; }
"""
_LINK = re.compile(r"\[([^][]*)\]\(([^)]+)\)")
_IMAGE = re.compile(r"!\[([^][]*)\]\(([^)]+)\)")


def document(results: Path, front: str, pages: dict[str, str]) -> str:
    """Make `index.html` of the front page and the pages behind it.

    Args:
        results: Folder that the links of the front page start from.
        front: The front page, Markdown.
        pages: Markdown pages by their paths in `results`. Links to them become links within the
            document.

    Returns:
        The document.

    Raises:
        OSError: If a picture cannot be read.
    """
    anchors = {path: _anchor(path) for path in pages}
    body = [f"<main>\n{_Page(results, '', anchors).html(front)}\n</main>"]
    for path, text in pages.items():
        folder = f"{Path(path).parent.as_posix()}/"
        content = _Page(results, folder, anchors).html(text)
        body.append(f'<article id="{anchors[path]}">\n{content}\n</article>')
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Do we still need layer-wise pretraining?</title>\n<style>\n{_STYLE}</style>\n"
        "</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _anchor(path: str) -> str:
    return re.sub(r"\W+", "-", Path(path).parent.as_posix())


class _Page:
    """Turns a Markdown page into HTML.

    Args:
        results: Folder of all results.
        folder: The page's own, below it, with a slash at its end; empty for the front page.
        anchors: Anchors in the document, by the paths of the pages that it holds.
    """

    def __init__(self, results: Path, folder: str, anchors: dict[str, str]):
        self._results, self._folder, self._anchors = results, folder, anchors

    def html(self, text: str) -> str:
        return "\n".join(self._block(block) for block in _blocks(text))

    def _block(self, block: str) -> str:
        for start, make in self._makers().items():
            if block.startswith(start):
                return make(block)
        return f"<p>{self._inline(block)}</p>"

    def _makers(self) -> dict[str, Callable[[str], str]]:
        return {
            "#": self._heading,
            "|": self._table,
            "- ": self._list,
            "```": lambda block: _code(block.removeprefix("```").removesuffix("```").strip("\n")),
            "    ": lambda block: _code(re.sub("^    ", "", block, flags=re.MULTILINE)),
        }

    def _heading(self, block: str) -> str:
        marks, _, text = block.partition(" ")
        return f"<h{len(marks)}>{self._inline(text)}</h{len(marks)}>"

    def _list(self, block: str) -> str:
        items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
        return "<ul>\n" + "".join(f"<li>{self._inline(i.strip())}</li>\n" for i in items) + "</ul>"

    def _table(self, block: str) -> str:
        header, rule, *rows = [_cells(line) for line in block.splitlines()]
        kinds = [' class="number"' if cell.endswith(":") else "" for cell in rule]
        lines = [self._row("th", header, kinds), *(self._row("td", row, kinds) for row in rows)]
        return '<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>"

    def _row(self, tag: str, cells: list[str], kinds: list[str]) -> str:
        filled = zip(cells, kinds, strict=True)
        return f"<tr>{''.join(f'<{tag}{k}>{self._inline(c)}</{tag}>' for c, k in filled)}</tr>"

    def _inline(self, text: str) -> str:
        """Code first, since nothing within it is markup."""
        parts = re.split(r"(`[^`]+`)", text)
        return "".join(
            f"<code>{escape(part[1:-1])}</code>" if part.startswith("`") else self._marked(part)
            for part in parts
        )

    def _marked(self, text: str) -> str:
        text = _IMAGE.sub(self._image, escape(text, quote=False))
        text = _LINK.sub(self._link, text)
        text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text, flags=re.DOTALL)
        return re.sub(r"(?<!\w)\*([^*]+)\*(?!\w)", r"<em>\1</em>", text)

    def _image(self, match: re.Match) -> str:
        content = (self._results / self._folder / match[2]).read_bytes()
        data = base64.b64encode(content).decode()
        alt = match[1].replace('"', "&quot;")
        return f'<img alt="{alt}" src="data:image/png;base64,{data}">'

    def _link(self, match: re.Match) -> str:
        path = match[2].partition("#")[0]
        target = self._folder + path
        inside = self._anchors.get(target)
        address = f"#{inside}" if inside else target
        return f'<a href="{address}">{match[1]}</a>'


def _blocks(text: str) -> Iterator[str]:
    """Split a page at its empty lines, but not within fenced code."""
    fenced = False
    lines = []
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        lines.append((fenced or bool(line.strip()), line))
    for filled, group in groupby(lines, key=lambda pair: pair[0]):
        if filled:
            yield "\n".join(line for _, line in group)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"
