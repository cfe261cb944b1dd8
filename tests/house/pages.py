"""Reading the Markdown pages: their links and their code blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^( *)```(\w*)[ ]*(.*?)\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ` ```LANGUAGE MARK`.

    Attributes:
        mark: "run" (a test executes it), a file name (a test writes it there for the blocks
            that run), "shown" (read only), or empty for languages that nobody could run.

    """

    language: str
    mark: str
    text: str


def all_pages(root: Path) -> list[Path]:
    """Return every Markdown page of the house, in a stable order."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/*.md")])


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in order."""
    return [
        Block(language, mark.strip(), _outdent(text, len(indent)))
        for indent, language, mark, text in FENCE.findall(page.read_text())
    ]


def _outdent(text: str, columns: int) -> str:
    return "".join(line[columns:] or "\n" for line in text.splitlines(keepends=True))


def links(page: Path) -> list[str]:
    """Return the targets that a page points to inside the house."""
    text = FENCE.sub("", page.read_text())
    targets = [markdown or html for markdown, html in LINK.findall(text)]
    return [t for t in targets if not re.match(r"[a-z]+:", t)]


def anchors(page: Path) -> set[str]:
    """Return the names that a link may use after `#`, as GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def script(page: Path) -> str:
    """Return one bash script that does what the page tells its reader to do, in order.

    Servers that a page starts with `&` are stopped when the script ends. A sidecar that drains
    is cut off by the second signal.
    """
    stop = "kill $(jobs -p) 2>/dev/null || true"  # in a trap too, a failure would end all
    steps = ["set -euo pipefail", f"trap '{stop}; sleep 0.5; {stop}; wait || true' EXIT"]
    for block in blocks(page):
        if block.mark == "run" and block.language == "sh":
            steps.append(block.text)
        elif block.mark == "run" and block.language == "python":
            steps.append(f"python - <<'END_OF_PYTHON'\n{block.text}END_OF_PYTHON\n")
        elif "." in block.mark:
            steps.append(f"cat > {block.mark} <<'END_OF_FILE'\n{block.text}END_OF_FILE\n")
    return "\n".join(steps) + "\n"
