"""Which studies there are: the modules of `studies` that define `SCALES`."""

import ast
from pathlib import Path

_FOLDER = Path(__file__).parents[1]


def studies() -> dict[str, str]:
    """Find the studies without importing them, since plotting takes seconds to import.

    Returns:
        The first line of each study's docstring, its question, by name.
    """
    trees = {path.stem: ast.parse(path.read_text()) for path in sorted(_FOLDER.glob("*.py"))}
    return {
        name: (ast.get_docstring(tree) or "").partition("\n")[0]
        for name, tree in trees.items()
        if "SCALES" in _assigned(tree)
    }


def _assigned(tree: ast.Module) -> set[str]:
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}
