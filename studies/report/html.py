"""All pages in one HTML file that needs no other file: pictures inline, no network."""

import base64
import re
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
<title>Do we still need layer-wise pretraining?</title>
<style>
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #222; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .75rem; }
article { border-top: 1px solid #ccc; margin-top: 3rem; }
img { display: block; height: auto; max-width: 100%; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left;
  vertical-align: top; min-width: 5rem; }
td:first-child { min-width: 12rem; }
th, [style*="right"] { white-space: nowrap; min-width: 0; }
code, pre { background: #f4f4f4; font-size: .875rem; }
pre { overflow-x: auto; padding: .75rem; }
a { color: #0057ae; }
</style>
</head>
<body>
<main>
$front</main>
$articles</body>
</html>
""")


def document(results: Path, front: str, pages: dict[str, str]) -> str:
    """Make `index.html` of the front page and of Markdown pages, by their paths in `results`.

    Links to the pages become links within the document.
    """
    articles = [
        f'<article id="{_anchor(path)}">\n{_html(text, path, results, pages)}</article>\n'
        for path, text in pages.items()
    ]
    front = _html(front, "README.md", results, pages)
    return _DOCUMENT.substitute(front=front, articles="".join(articles))


def _html(text: str, path: str, results: Path, pages: dict[str, str]) -> str:
    """A page as HTML; the links of a page start from the page's own folder."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens, folder = parser.parse(text), Path(path).parent
    for token in tokens:
        for child in _with_children(token):
            if child.type == "image":
                _embed(child, results, folder)
            elif child.type == "link_open":
                child.attrs["href"] = _address(str(child.attrs["href"]), folder, pages)
    page = parser.renderer.render(tokens, parser.options, {})
    # On a narrow screen, a table scrolls by itself.
    return page.replace("<table>", '<div class="table"><table>').replace(
        "</table>", "</table></div>"
    )


def _embed(image: Token, results: Path, folder: Path) -> None:
    """Put a picture of the results into the page; of any other picture, its description stays."""
    picture = (results / folder / unquote(str(image.attrs["src"]))).resolve()
    is_ours = picture.suffix == ".png" and picture.is_relative_to(results.resolve())
    if is_ours and picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode()
        image.attrs["src"] = f"data:image/png;base64,{data}"
    else:
        image.type = "text"


def _address(link: str, folder: Path, pages: dict[str, str]) -> str:
    """Where a link leads from `index.html`: absolute links lead where they did."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return link
    target = (folder / unquote(parts.path)).as_posix()
    return f"#{_anchor(target)}" if target in pages else quote(target)


def _with_children(token: Token) -> list[Token]:
    """A token's children, and the pictures within its links."""
    return [each for child in token.children or () for each in (child, *_with_children(child))]


def _anchor(path: str) -> str:
    return re.sub(r"\W+", "-", Path(path).parent.as_posix())
