"""Counts the lines of each concern: those between `# >>> auth` and `# <<< auth`, the innermost mark holds. Blank lines,
comments and docstrings are none. Prints the table of docs/BOILERPLATE.md.
"""
import ast
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent
CONCERNS = ["auth", "limit", "retry", "breaker"]
TAKEN_OVER = CONCERNS[:3]   # the gateway has no breaker yet
MARK = re.compile(r"\s*# (>>>|<<<) (\w+)$")


def docstrings(text):
    """The numbers of their lines."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.update(range(node.lineno, node.end_lineno + 1))
    return found


def count(path):
    text = path.read_text()
    left_out = docstrings(text) if path.suffix == ".py" else set()
    lines, open_marks = dict.fromkeys([*CONCERNS, "rest"], 0), []
    for number, line in enumerate(text.splitlines(), 1):
        mark = MARK.match(line)
        if mark and mark[1] == ">>>":
            assert mark[2] in CONCERNS, f"{path}:{number}: {mark[2]}"
            open_marks.append(mark[2])
        elif mark:
            assert open_marks and open_marks.pop() == mark[2], f"{path}:{number}: {mark[2]} was not the last to begin"
        elif line.strip() and not line.strip().startswith("#") and number not in left_out:
            lines[open_marks[-1] if open_marks else "rest"] += 1
    assert not open_marks, f"{path}: {open_marks} has no end"
    return lines


def table():
    rows = [("", *CONCERNS, "together", "the rest")]
    counted = {name: count(FOLDER / name) for name in ("orders_alone.py", "orders_behind.py", "gateway.yaml")}
    for name, lines in counted.items():
        own = [lines[concern] for concern in CONCERNS]
        rows.append((f"`{name}`", *own, sum(own), lines["rest"]))
    alone, behind = (sum(counted[name][concern] for concern in TAKEN_OVER) for name in ("orders_alone.py", "orders_behind.py"))
    out = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    out.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join(out) + f"\n\nGone of {', '.join(TAKEN_OVER)}: {alone - behind} of {alone} lines, {100 * (alone - behind) / alone:.0f} %.\n"


if __name__ == "__main__":
    print(table(), end="")
