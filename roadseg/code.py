"""Digests of code: of a module and all that it imports from this project.

Code is compared as syntax trees. Comments, docstrings, formatting and the texts of messages are no
part of them, so that an edit of these makes nothing stale. Messages are what `raise`, `say`,
`print` and `InputError` are given, and the second argument of `rule` and `contradiction`.
"""

import ast
import hashlib
import json
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# What decides the weights that a recipe comes to, and what decides the scores of weights.
TRAINING = ("roadseg.training.loop", "roadseg.training.warm_start")
DOCSTRING_OWNERS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
EVALUATION = ("roadseg.training.score",)
MESSAGE_ARGUMENTS = {
    "say": slice(None),
    "print": slice(None),
    "InputError": slice(None),
    "rule": slice(1, 2),
    "contradiction": slice(1, 2),
}


@cache  # once in a process, which goes on with the code that it began with
def digest(*modules: str) -> str:
    """Return the digest, twelve hex digits, of modules and all that they import."""
    text = "".join(f"{name} {file_digest(file)}\n" for name, file in closure(*modules).items())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def closure(*modules: str) -> dict[str, Path]:
    """Return modules of this project and all that they import, by name: name -> file.

    Imports within functions count. So do the packages that a module lies in.
    """
    files, queue = {}, list(modules)
    while queue:
        name = queue.pop()
        file = module_file(name)
        if file is None or name in files:
            continue
        files[name] = file
        if "." in name:
            queue.append(name.rpartition(".")[0])
        queue += file_imports(file)
    return dict(sorted(files.items()))


def module_file(name: str) -> Path | None:
    """Return the file of a module of this project, or None if there is none of that name."""
    package, *rest = name.split(".")
    if package != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*rest)
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def file_imports(file: Path) -> list[str]:
    """Return all names that a file may import from this project, modules or not."""
    return imported_names(ast.parse(file.read_text()))


def imported_names(tree: ast.AST) -> list[str]:
    """Return all names that code may import from this project, modules or not."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.partition(".")[0] == PACKAGE.name]


@cache
def file_digest(file: Path) -> str:
    """Return the digest of one file of Python code."""
    return hashlib.sha256(ast.unparse(stripped(file.read_text())).encode()).hexdigest()[:12]


def stripped(source: str) -> ast.Module:
    """Return the syntax tree of Python code without docstrings and the texts of messages."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, DOCSTRING_OWNERS) and (
            body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:] or [ast.Pass()]
        if isinstance(node, ast.Raise) and node.exc:
            node.exc = _StringBlanker().visit(node.exc)
        if isinstance(node, ast.Call):
            function_name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            arguments = MESSAGE_ARGUMENTS.get(function_name, slice(0))
            node.args[arguments] = [
                _StringBlanker().visit(argument) for argument in node.args[arguments]
            ]
    return ast.fix_missing_locations(tree)


def notebook_digest(file: Path) -> tuple[str, list[str]]:
    """Return the digest of a notebook without its outputs, and what it may import from here."""
    cells = json.loads(file.read_text())["cells"]
    content = [
        [cell["cell_type"], cell["metadata"].get("tags", []), "".join(cell["source"])]
        for cell in cells
    ]
    names = []
    for kind, _, source in content:
        if kind == "code":
            names += imported_names(ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M)))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12], names


class _StringBlanker(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:  # noqa: N802
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:  # noqa: N802
        return ast.Constant("")


def asset_digests(*modules: str) -> dict[str, str]:
    """Return the digests of files that modules keep beside them: templates and scripts, by name."""
    folders = {file.parent for file in closure(*modules).values()} - {PACKAGE}
    return {
        str(file.relative_to(PACKAGE)): hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for folder in sorted(folders)
        for file in sorted(folder.iterdir())
        if file.suffix in (".j2", ".js", ".css")
    }
