"""Commands end with a result or with one line that says what to do."""

from __future__ import annotations

import pytest
import typer

from edgetrain.command import DEBUG_VARIABLE, run_command
from edgetrain.errors import BudgetError, EdgetrainError


def application() -> typer.Typer:
    """Return an application with one command that succeeds and one that fails."""
    app = typer.Typer()

    @app.command()
    def say(words: list[str]) -> None:
        print(" ".join(words))

    @app.command()
    def fail() -> None:
        raise BudgetError("nothing fits:\n  allow 3 MiB more")

    @app.command()
    def fault() -> None:
        raise KeyError("missing")

    return app


def ending(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(application(), arguments)
    return caught.value.code


def test_success_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending("say", "hello") == 0
    assert capsys.readouterr().out == "hello\n"


def test_error_is_one_line_on_stderr_and_its_own_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ending("fail") == BudgetError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: nothing fits: allow 3 MiB more\n"


def test_a_fault_of_ours_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending("fault") == EdgetrainError.exit_code
    error = capsys.readouterr().err
    assert error.startswith("error: internal error, KeyError: 'missing'")
    assert error.count("\n") == 1
    assert ending("--debug", "fault") == EdgetrainError.exit_code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--debug", "fail"), ("fail", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(*arguments) == BudgetError.exit_code
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert error.endswith("error: nothing fits: allow 3 MiB more\n")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_from_the_environment(
    value: str,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, value)
    ending("fail")
    assert ("Traceback" in capsys.readouterr().err) is shown


def test_debug_behind_a_bare_double_dash_belongs_to_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ending("say", "--", "--debug") == 0
    assert capsys.readouterr().out == "--debug\n"


def test_a_wrong_option_keeps_the_exit_code_of_typer(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending("say", "--nonsense") == 2
    assert "--nonsense" in capsys.readouterr().err


def test_help_says_how_to_see_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending("--help") == 0
    assert "--debug" in capsys.readouterr().out
