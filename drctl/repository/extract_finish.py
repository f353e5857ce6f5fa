"""What one process does before and after the workers: directories, files of several packs, links.

Invariant: a directory stays closed to others until everything in it is done; its metadata comes
last, the deepest first, because each entry made in it changes its times.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from drctl.repository.extract_metadata import drop_other_attributes, settle_open
from drctl.repository.extract_plan import Deletion, Failure
from drctl.repository.extract_target import create_file, inode_of, reopen_file
from drctl.repository.extract_task import WriteContext, refuse_fatal
from drctl.repository.node_table import FAILED, FOUND, LINKED, SCAFFOLD, STAGED, Planned

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Finisher:
    """The single-process phases of a restore."""

    def __init__(self, context: WriteContext) -> None:
        self.failures: list[Failure] = []
        self.strangers = 0
        self.files = 0
        self._context = context
        self._nodes = context.plan.nodes
        self._place = context.target

    # --- before

    def delete(self, deletions: tuple[Deletion, ...]) -> int:
        """Remove what the plan names; how many were."""
        count = 0
        for deletion in deletions:
            try:
                self._place.remove(deletion.directory, deletion.name)
                count += 1
            except FileNotFoundError:
                continue
            except OSError as exc:
                path = self._nodes.path(deletion.directory) + b"/" + deletion.name
                self.failures.append(Failure(path, f"cannot be deleted: {exc.strerror}"))
        return count

    def make_directories(self) -> None:
        """Parents come before their children in the table."""
        flags = self._nodes.flags
        for node in self._directories():
            if flags[node.parent] & FAILED:
                flags[node.number] |= FAILED
                continue
            try:
                self._place.make_directory(node.number)
            except OSError as exc:
                refuse_fatal(exc, self._place)
                flags[node.number] |= FAILED
                message = f"the directory cannot be made, nothing in it was restored: {exc.strerror}"
                self.failures.append(Failure(self._nodes.path(node.number), message))

    def stage(self) -> None:
        """Make the files whose content comes from several places, empty and of their full size."""
        for number, flags in enumerate(self._nodes.flags):
            if not flags & STAGED or flags & LINKED:
                continue
            node = self._nodes[number]
            if self._nodes.flags[node.parent] & FAILED:
                continue
            try:
                directory = self._place.directory(node.parent)
                descriptor = create_file(self._context.working_name(node), directory, 0o600)
                try:
                    os.ftruncate(descriptor, node.size)
                    self._context.staged[number] = inode_of(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as exc:
                self._fail(node, exc)

    def withdraw_staged(self) -> None:
        """The run ends early: no file that is not whole stays."""
        for number in self._context.staged:
            self._context.withdraw(self._nodes[number])

    # --- after

    def complete(self, broken: set[int]) -> None:
        """Staged files, further links, directories."""
        for number in self._context.staged:
            node = self._nodes[number]
            if number in broken:
                self._context.withdraw(node)
            else:
                self._try(node, self._complete_staged)
        for number in self._nodes.first_of_link:
            node = self._nodes[number]
            if not self._nodes.flags[node.parent] & FAILED:
                self._try(node, self._link)
        for node in self._directories(deepest_first=True):
            if not self._nodes.flags[node.number] & FAILED:
                self._try(node, self._settle_directory)
        if not self._nodes.flags[0] & SCAFFOLD and self._place.created:
            self._try(self._nodes[0], self._settle_directory)

    def _complete_staged(self, node: Planned) -> list[str]:
        context = self._context
        directory = self._place.directory(node.parent)
        descriptor = reopen_file(context.working_name(node), directory, context.staged[node.number])
        try:
            problems = context.settle(descriptor, node)
        finally:
            os.close(descriptor)
        context.publish(node)
        self.files += 1
        return problems

    def _link(self, node: Planned) -> list[str]:
        first = self._nodes[self._nodes.first_of_link[node.number]]
        # held: the second look-up may push the first descriptor out of the cache
        source = os.dup(self._place.directory(first.parent))
        try:
            directory = self._place.directory(node.parent)
            if self._place.fresh or not _is_same(first.name, source, node.name, directory):
                name = self._context.working_name(node)
                os.link(first.name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
                self._context.publish(node)
        finally:
            os.close(source)
        self.files += 1
        return []

    def _settle_directory(self, node: Planned) -> list[str]:
        flags = self._nodes.flags[node.number]
        if flags & SCAFFOLD and flags & FOUND:
            return []  # it was there and was not asked for
        if node.number == 0:
            descriptor = os.dup(self._place.root)
        else:
            descriptor = os.open(node.name, _DIRECTORY, dir_fd=self._place.directory(node.parent))
        try:
            extra, rules = self._nodes.extra_of(node.number), self._context.rules
            dropped = [] if self._context.plain else drop_other_attributes(descriptor, extra, rules)
            self.strangers += rules.is_stranger(node)
            return dropped + settle_open(descriptor, node, extra, rules)
        finally:
            os.close(descriptor)

    def _directories(self, *, deepest_first: bool = False) -> Iterator[Planned]:
        numbers = self._nodes.directories[1:]
        for number in reversed(numbers) if deepest_first else numbers:
            yield self._nodes[number]

    def _try(self, node: Planned, act: Callable[[Planned], list[str]]) -> None:
        try:
            problems = act(node)
        except OSError as exc:
            self._fail(node, exc)
            return
        if problems:
            self.failures.append(Failure(self._nodes.path(node.number), "; ".join(problems)))

    def _fail(self, node: Planned, error: OSError) -> None:
        refuse_fatal(error, self._place)
        self.failures.append(Failure(self._nodes.path(node.number), error.strerror or str(error)))


def _is_same(one: bytes, one_directory: int, other: bytes, other_directory: int) -> bool:
    try:
        found = os.stat(other, dir_fd=other_directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.stat(one, dir_fd=one_directory, follow_symlinks=False), found)
