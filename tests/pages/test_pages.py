"""The pages for people, read as people read them: every command in order, in one terminal.

Each page starts from a new clone in which `make serve` was run and a second model published. The
programs are the real ones; trainings have a thousandth of their length (hurry/sitecustomize.py).
Which commands need more than a terminal, and which can't run here, is in table.py.
"""

import re
from collections.abc import Callable

import pytest

from tests.pages.reading import ROOT, Statement, statements, steps
from tests.pages.shell import Shell
from tests.pages.table import ELSEWHERE, PAGES, RULES, SERVES, Page, Rule

_ORDINARY = Rule("", "", "most commands", terminal="here")
_CLIENT = re.compile(r"(saddlepoint client|serving\.client) ")


def rule_of(statement: Statement) -> Rule:
    """How a command is run: the table's first word on it."""
    if SERVES.search(statement.code):
        default = Rule(statement.page, "", "it serves until it is stopped", terminal="another")
    else:
        default = _ORDINARY
    return next((rule for rule in RULES if rule.fits(statement)), default)


def follow(statement: Statement, shell: Shell) -> None:
    """Runs a command as its reader does, at the shell's own port."""
    rule = rule_of(statement)
    code = statement.code
    for old, new in (*rule.replaced, ("127.0.0.1:8000", shell.url.removeprefix("http://"))):
        code = code.replace(old, new)
    if statement.language == "python":
        path = shell.clone / f"line_{statement.line}.py"
        path.write_text(code)
        code = f".venv/bin/python {path.name}\n"
    else:
        code = _CLIENT.sub(rf"\1 --url {shell.url} ", code)
    if rule.terminal == "here":
        shell.run(code, codes=rule.codes)
    elif rule.terminal == "another":
        shell.serve(code)
    elif rule.terminal == "stopped":
        pid = shell.start(f"HURRY=ticks {code}", lambda text: rule.until in text)
        shell.stop(pid, codes=rule.codes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_reader_can_follow(page: Page, new_shell: Callable[..., Shell]) -> None:
    shell = new_shell(fresh=page.fresh)
    if page.serves:
        shell.serve("make serve\n")
    for code in page.before:
        shell.run(code)
    for step in steps(page.name):
        if isinstance(step, Statement):
            follow(step, shell)
        elif page.shows:
            lines = [line.strip() for line in shell.output.splitlines()]
            assert any(line.startswith(step.start) for line in lines), step


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.page}: {rule.pattern}")
def test_a_rule_is_about_a_command(rule: Rule) -> None:
    codes = [each.code for each in statements(rule.page) if rule.fits(each)]
    assert codes, "no such command any more: remove the rule, or mend its pattern"
    assert rule.why
    assert all(old in codes[0] for old, _ in rule.replaced)


def test_every_page_with_commands_is_followed_or_excused() -> None:
    pages = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    with_commands = {page for page in pages if statements(page)}
    followed = {page.name for page in PAGES}
    assert with_commands - followed == set(ELSEWHERE)
