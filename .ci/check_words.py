"""Check that prose follows the project's wording rules.

The check covers documentation, docstrings, comments and messages. It reports phrases that readers
had to decode in earlier versions, and docstrings that begin with a clause instead of a verb or noun
phrase. Usage: `python .ci/check_words.py [PATH...]`; without paths it checks `CHECKED`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CHECKED = (
    ".ci",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "docs",
    "examples",
    "mkdocs.yml",
    "pyproject.toml",
    "savedmodels/README.md",
    "setup.cfg",
    "sits_keras",
    "tests",
)
# These two contain the phrases.
EXCLUDED = (".ci/check_words.py", "tests/test_check_words.py")
SUFFIXES = {"", ".cff", ".cfg", ".html", ".md", ".py", ".toml", ".yaml", ".yml"}

BANNED = {
    r"(?<!there\s)\bis no (?!data|longer|more|less|fewer)": "write 'is not a'",
    r"\b(holds?|held) no\b": "write 'does not contain'",
    r"\bmend(s|ed|ing)?\b": "write 'fix'",
    r"\banew\b": "write 'again'",
    r"\b(go(es)?|going|went) on\b": "write 'resume' or 'continue'",
    r"\bbegin(s|ning)? again\b": "write 'start over'",
    r"\bsurroundings\b": "write 'context'",
    r"\bshares? of\b": "write 'fraction of'",
    r"\b(tell|tells|telling|told) apart\b": "write 'distinguish' or 'classify'",
    r"\b(find|finds|finding|found) again\b": "write 'retrieve'",
    r"\btak(e|es|ing) stock\b": "write 'list'",
    r"\bhalf-written\b": "write 'partial'",
    r"\bat home\b": "avoid metaphors",
    r"\bplayers?\b": "name the networks",
    r"\bgrain\b": "avoid metaphors",
    r"\bnothing but\b": "write 'only'",
    r"\bwhat is there\b": "name the thing",
    r"\b(is|are|was|were) told\b": "write 'is reported' or 'receives'",
    r"\b(says?|said|saying) so\b": "write 'reports it' or 'states it'",
    r"\bwhere (it|they) lies?\b": "write 'in place'",
    r"\blies? beside\b": "write 'is next to'",
}
_RULES = [
    (re.compile(pattern.replace(" ", " +"), re.IGNORECASE), advice)
    for pattern, advice in BANNED.items()
]
_OUTPUT = re.compile(r"^```text$.*?^```$", re.DOTALL | re.MULTILINE)
_CLAUSE = re.compile(r"\s*(What|Where|How|Which|Who|Whose|Whether|Why|When)\b")


def find_files(paths: tuple[str, ...]) -> Iterator[Path]:
    """Yield the text files at and below `paths`."""
    excluded = {ROOT / path for path in EXCLUDED}
    for path in paths:
        start = ROOT / path
        for file in [start] if start.is_file() else sorted(start.rglob("*")):
            if file.is_file() and file.suffix in SUFFIXES and file not in excluded:
                yield file


def find_banned(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and a message for each banned phrase, also across a line break."""
    flat = re.sub(r"\n *#?", lambda match: " " * len(match[0]), text)
    for pattern, advice in _RULES:
        for match in pattern.finditer(flat):
            phrase = " ".join(match[0].split())
            yield text.count("\n", 0, match.start()) + 1, f"'{phrase}': {advice}"


def find_clauses(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and a message for each docstring that begins with a clause."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and (match := _CLAUSE.match(docstring)):
                yield (
                    node.body[0].lineno,
                    f"docstring begins with '{match[1]}': begin with a verb or noun phrase",
                )


def main(paths: tuple[str, ...]) -> int:
    """Print every finding as `path:line: message` and return the exit code."""
    found = False
    for file in find_files(paths):
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".md":
            # Output and error messages are checked where they are written.
            text = _OUTPUT.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
        findings = [*find_banned(text), *(find_clauses(text) if file.suffix == ".py" else ())]
        for line, message in sorted(findings):
            print(f"{file.relative_to(ROOT)}:{line}: {message}")
            found = True
    return int(found)


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or CHECKED))
