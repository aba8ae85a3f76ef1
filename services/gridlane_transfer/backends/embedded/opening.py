"""Who implements an end: `local` for a file of a directory, `webdav` for a remote one.

Responsible for that choice alone. `webdav` is loaded when the first remote place is met: most
workers never need it, and start the quicker.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gridlane_transfer.backends.embedded import local
from gridlane_transfer.backends.embedded.ends import (
    AnyPlace,
    Carried,
    Content,
    Control,
    CopyTask,
    Found,
    Source,
    Target,
)
from gridlane_transfer.backends.embedded.places import Folders, KeptFolders, Place
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions

if TYPE_CHECKING:
    from gridlane_transfer.backends.embedded.webdav.ends import Remote

_DEFAULT = HttpOptions()


class Ends:
    """Opens ends.

    Parameters:
        http: what is configured for remote ones.
    """

    def __init__(self, http: HttpOptions = _DEFAULT) -> None:
        self._http = http
        self._made: Remote | None = None
        self._folders = Folders()

    @contextmanager
    def together(self) -> Iterator["Ends"]:
        """The same for files that one thread copies together: their directories are opened, and
        made durable, once for all.
        """
        ends, folders = Ends(self._http), KeptFolders()
        ends._made, ends._folders = self._made, folders
        try:
            yield ends
        finally:
            folders.close()

    def source(self, place: AnyPlace, task: CopyTask, control: Control) -> Source:
        """Open a file for reading.

        Raises:
            SourceError: it cannot be read.
        """
        if isinstance(place, Place):
            return local.LocalSource(place, self._folders)
        return self._remote().source(place, task, control)

    def target(
        self,
        task: CopyTask,
        temporary: str,
        size: int | None,
        control: Control,
        leave: Callable[[], None],
    ) -> Target:
        """Begin to write a file under a temporary name.

        Parameters:
            leave: raises when the file may not be published; asked here where there can be no
                temporary name.

        Raises:
            MoveError: it cannot be written.
        """
        if isinstance(task.target, Place):
            create = not task.strict_copy
            return local.LocalTarget(task.target, temporary, create=create, folders=self._folders)
        return self._remote().target(task, task.target, temporary, size, control, leave)

    def carried(
        self, source: AnyPlace, task: CopyTask, temporary: str, control: Control
    ) -> Carried | None:
        """Have two storages copy between them; None when the bytes must pass here.

        Raises:
            SourceError, MoveError: neither way can go well.
        """
        if isinstance(source, Place) or isinstance(task.target, Place):
            return None
        return self._remote().carried(source, task, temporary, control)

    def refuse_taken(self, task: CopyTask, control: Control) -> None:
        """Say early what publishing would say late.

        Raises:
            MoveError: TARGET_EXISTS, TARGET_UNWRITABLE.
        """
        if isinstance(task.target, Place):
            local.refuse_taken(
                task.target,
                overwrite=task.overwrite,
                create=not task.strict_copy,
                folders=self._folders,
            )
        else:
            self._remote().refuse_taken(task.target, control, overwrite=task.overwrite)

    def remove_leftovers(self, place: AnyPlace, names: Iterable[str], control: Control) -> None:
        """Remove what earlier attempts left.

        Raises:
            MoveError: something may be there still.
        """
        if isinstance(place, Place):
            local.remove_leftovers(place, names, self._folders)
        else:
            self._remote().remove_leftovers(place, names, control)

    def content(
        self, place: AnyPlace, algorithms: Sequence[str], control: Control, *, told: bool = False
    ) -> Content:
        """What is in a file.

        Parameters:
            told: whether a storage's word is enough; else its bytes are read.

        Raises:
            SourceError: it is not there, or cannot be read.
        """
        if isinstance(place, Place):
            return local.content(place, algorithms, control)
        return self._remote().content(place, algorithms, control, told=told)

    def make_durable(self, place: AnyPlace) -> None:
        """Have a file that is there, and its name, durable, whoever put it there.

        Raises:
            MoveError: it may not be.
        """
        if isinstance(place, Place):
            local.make_durable(place)

    def found(self, place: AnyPlace, algorithms: Sequence[str], control: Control) -> Found:
        """What is known of a file without its bytes being read.

        Raises:
            SourceError: it is not there, or cannot be known.
        """
        if isinstance(place, Place):
            return local.found(place)
        return self._remote().found(place, algorithms, control)

    def remove(self, place: AnyPlace, control: Control) -> bool:
        """Remove a file; False when it was not there.

        Raises:
            MoveError: it is there still.
        """
        if isinstance(place, Place):
            return local.remove(place)
        return self._remote().remove(place, control)

    def _remote(self) -> "Remote":
        if self._made is None:
            from gridlane_transfer.backends.embedded.webdav.ends import Remote

            self._made = Remote(self._http)
        return self._made
