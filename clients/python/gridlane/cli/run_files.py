"""The local files of `gridlane run`: into the store before the job, out of it afterwards.

Responsible for where they lie there, a folder of their own below the caller's, so that nothing of
another run is in the way; and for removing the inputs again. A local path is never named to the
server.

    LFN:/<vo>/user/<initial>/<user>/runs/<uuid>/in/NAME     local inputs, until the job has ended
    LFN:/<vo>/user/<initial>/<user>/runs/<uuid>/out/NAME    outputs with a local path
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gridlane.cli.run_plan import Input, Output

if TYPE_CHECKING:
    from gridlane.client import Client

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]


def own_folder(client: Client, vo: str) -> str:
    """A new folder of the caller's in the store: "LFN:/<vo>/user/<initial>/<user>/runs/<uuid>".

    Parameters:
        client: the caller's.
        vo: the VO; empty when the caller has one alone.

    Raises:
        ValueError: the caller has no VO or several, or no storage element keeps files of the VO.
        GridlaneError: a call failed.
    """
    from gridlane.ids import uuid7

    principal = client.whoami().principal
    if not vo and len(principal.vos) != 1:
        named = ", ".join(principal.vos) or "none"
        raise ValueError(f"choose a VO with --vo: you belong to {named}")
    vo = vo or principal.vos[0]
    bases = [
        element.vo_paths[vo]
        for element in client.storage.elements()
        if element.writable and not element.internal and vo in element.vo_paths
    ]
    if not bases:
        raise ValueError(f"no storage element that can be written keeps files of the VO {vo}")
    user = re.sub(r"[^A-Za-z0-9._-]+", "_", principal.subject).strip("._") or "user"
    return f"LFN:{bases[0].rstrip('/')}/user/{user[0]}/{user}/runs/{uuid7()}"


@dataclass
class LocalFiles:
    """The files of one run.

    Attributes:
        client: whose store it is.
        folder: where they lie there; empty when no local file takes part.
        put: logical names of those that were put.
    """

    client: Client
    folder: str
    put: list[str]

    def bring(self, inputs: Sequence[Input], progress: Progress) -> list[Input]:
        """Put the local inputs into the store.

        Returns:
            The inputs, each with a source that the server can read.

        Raises:
            GridlaneError, OSError: one could not be put; those put before are removed again.
        """
        try:
            return [self._bring(given, progress) for given in inputs]
        except BaseException:
            self.take_back()
            raise

    def _bring(self, given: Input, progress: Progress) -> Input:
        if given.local is None:
            return given
        source = f"{self.folder}/in/{given.name}"
        self.put.append(source)
        with progress(given.name) as told:
            self.client.storage.put(
                given.local, source, checksum=given.checksum or None, progress=told
            )
        return replace(given, source=source)

    def place(self, outputs: Sequence[Output]) -> list[Output]:
        """The outputs, each with a target that the server can write."""
        return [
            output
            if output.local is None
            else replace(output, target=f"{self.folder}/out/{output.name}")
            for output in outputs
        ]

    def take_back(self) -> list[str]:
        """Remove what was put: nobody reads it, the job has ended or does not exist.

        Returns:
            What could not be removed, and may be there still.
        """
        from gridlane.errors import GridlaneError

        def removed(name: str) -> bool:
            try:
                self.client.storage.delete(name, missing_ok=True, timeout=5)
            except GridlaneError:
                return False
            return True

        left = [name for name in self.put if not removed(name)]
        self.put.clear()
        return left

    def fetch(self, outputs: Sequence[Output], progress: Progress) -> None:
        """Bring the outputs to their local paths, verified. The copies in the store stay.

        Raises:
            GridlaneError, OSError: one could not be brought; it is in the store still.
        """
        for output in outputs:
            if output.local is not None:
                with progress(output.name) as told:
                    self.client.storage.get(output.target, output.local, progress=told)
