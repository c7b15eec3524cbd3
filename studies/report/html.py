"""All pages in one HTML file that needs no other file: pictures inline, no network."""

import base64
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote, unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

_DOCUMENT = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #222; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .75rem; }
article { border-top: 1px solid #ccc; margin-top: 3rem; }
img { display: block; height: auto; max-width: 100%; }
/* On a phone, a figure keeps a readable size and scrolls by itself, like a table. */
@media (max-width: 40rem) { p:has(img) { overflow-x: auto; } img { max-width: 45rem; } }
nav ul { columns: 18rem; font-size: .875rem; list-style: none; padding: 0; }
nav .inner { padding-left: 1rem; }
abbr { cursor: help; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left;
  vertical-align: top; min-width: 5rem; }
td:first-child { min-width: 12rem; }
th, [style*="right"] { white-space: nowrap; min-width: 0; }
th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " \\2191"; }
th[aria-sort=descending]::after { content: " \\2193"; }
tr:has(:target) { background: #fff3c4; }
code, pre { background: #f4f4f4; font-size: .875rem; }
pre { overflow-x: auto; padding: .75rem; }
a { color: #0057ae; }
</style>
</head>
<body>
<nav aria-label="Contents"><details><summary>Contents</summary><ul>
$contents</ul></details></nav>
<main>
$front</main>
$articles<script>
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const falls = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  const text = row => row.cells[column].textContent, number = row => parseFloat(text(row));
  const order = (a, b) => number(a) - number(b) || text(a).localeCompare(text(b));
  body.append(...[...body.rows].sort((a, b) => (falls ? -1 : 1) * order(a, b)));
};
</script>
</body>
</html>
""")

# Of all HTML, a page of Markdown may hold the names of rows.
_ROW_NAME = re.compile(r'<a id="([\w-]+)"></a>')
_ESCAPED_ROW_NAME = re.compile(escape(_ROW_NAME.pattern))


def document(
    results: Path,
    front: str,
    pages: dict[str, str],
    hints: Mapping[str, str] | None = None,
    title: str = "Do we still need layer-wise pretraining?",
) -> str:
    """Make `index.html` of the front page and of Markdown pages, by their paths in `results`.

    Links to the pages become links within the document. A table's cell that is a key of `hints`
    shows the hint to a reader who points at it.
    """
    texts = {"README.md": front, **pages}
    found = {path: _html(text, path, results, pages, hints or {}) for path, text in texts.items()}
    contents = [line for path, text in texts.items() for line in _contents(text, path)]
    main, *articles = (
        f'<article id="{_anchor(path)}">\n{page}</article>\n' if path in pages else page
        for path, page in found.items()
    )
    return _DOCUMENT.substitute(
        title=escape(title), contents="".join(contents), front=main, articles="".join(articles)
    )


def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _html(
    text: str, path: str, results: Path, pages: dict[str, str], hints: Mapping[str, str]
) -> str:
    """A page as HTML; the links of a page start from the page's own folder."""
    parser = _parser()
    tokens, folder = parser.parse(text), Path(path).parent
    for opening, heading in _headings(tokens):
        opening.attrs["id"] = _anchor(path, heading)
    for before, token in zip(tokens, tokens[1:], strict=False):
        shown = _ROW_NAME.sub("", "".join(child.content for child in token.children or ()))
        if before.type == "td_open" and shown in hints:
            _hint(token, hints[shown])
    for token in tokens:
        for child in _with_children(token):
            if child.type == "image":
                _embed(child, results, folder)
            elif child.type == "link_open":
                child.attrs["href"] = _address(str(child.attrs["href"]), path, pages)
    page = parser.renderer.render(tokens, parser.options, {})
    page = _ESCAPED_ROW_NAME.sub(lambda name: f'<a id="{_anchor(path, name[1])}"></a>', page)
    # On a narrow screen, a table scrolls by itself.
    return page.replace("<table>", '<div class="table"><table>').replace(
        "</table>", "</table></div>"
    )


def _headings(tokens: list[Token]) -> Iterator[tuple[Token, str]]:
    """The headings of a page but its title, and their texts."""
    for opening, inline in zip(tokens, tokens[1:], strict=False):
        if opening.type == "heading_open" and opening.tag != "h1":
            yield opening, inline.content


def _contents(text: str, path: str) -> Iterator[str]:
    """The lines of the contents for a page: its title, and the headings below it."""
    tokens = _parser().parse(text)
    title = next(
        (after for t, after in zip(tokens, tokens[1:], strict=False) if t.tag == "h1"), None
    )
    if title and path != "README.md":
        yield f'<li><a href="#{_anchor(path)}">{escape(title.content)}</a></li>\n'
    for opening, heading in _headings(tokens):
        if opening.tag == "h2":
            link = f'<a href="#{_anchor(path, heading)}">{escape(heading)}</a>'
            yield f'<li class="inner">{link}</li>\n'


def _hint(cell: Token, hint: str) -> None:
    """Show a hint to a reader who points at the text of a cell."""
    opening, closing = Token("html_inline", "", 0), Token("html_inline", "", 0)
    opening.content, closing.content = f'<abbr title="{escape(hint)}">', "</abbr>"
    cell.children = [opening, *cell.children, closing]


def _embed(image: Token, results: Path, folder: Path) -> None:
    """Put a picture of the results into the page; of any other picture, its description stays."""
    picture = (results / folder / unquote(str(image.attrs["src"]))).resolve()
    is_ours = picture.suffix == ".png" and picture.is_relative_to(results.resolve())
    if is_ours and picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode()
        image.attrs["src"] = f"data:image/png;base64,{data}"
    else:
        image.type = "text"


def _address(link: str, path: str, pages: dict[str, str]) -> str:
    """Where a link leads from `index.html`: absolute links lead where they did."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return link
    target = (Path(path).parent / unquote(parts.path)).as_posix() if parts.path else path
    if target in pages or not parts.path:
        return f"#{_anchor(target, unquote(parts.fragment))}"
    return quote(target)


def _with_children(token: Token) -> list[Token]:
    """A token's children, and the pictures within its links."""
    return [each for child in token.children or () for each in (child, *_with_children(child))]


def _anchor(path: str, heading: str = "") -> str:
    """The name of a page, or of a heading or row in a page."""
    words = [*Path(path).parent.parts, heading.lower()]
    return "-".join(filter(None, (re.sub(r"\W+", "-", word).strip("-") for word in words)))
