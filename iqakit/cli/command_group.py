"""A group of commands that answers a wrong name with near matches, whatever version of typer is installed."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from iqakit.errors import UnknownNameError


class NamedCommands(TyperGroup):
    """Commands below a command, such as ``iqakit plugins``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is about to be run.

        Raises:
            UnknownNameError: There is none of that name.
        """
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            hint = f"({ctx.command_path} --help lists them)"
            raise UnknownNameError.of(f"command of {ctx.command_path}", args[0], self.commands, hint)
        return super().resolve_command(ctx, args)
