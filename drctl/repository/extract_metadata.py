"""Owner, mode, extended attributes and times of what was restored, and how they compare.

Invariant: the order is owner, mode, extended attributes, times: chown clears setuid and file
capabilities, chmod changes an ACL's mask, and each touches the times' neighbours. Where the owner
cannot be given, setuid and setgid are not given either.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from drctl.repository.node_table import Extra, Planned

_PRIVILEGED = stat.S_ISUID | stat.S_ISGID
_CAPABILITIES = b"security.capability"
_KERNEL_ATTRIBUTES = (b"security.selinux", b"security.ima", b"security.evm")


@dataclass(frozen=True, slots=True)
class MetadataRules:
    """`owners`: numbers are set (the process is root and it was not declined). `privileges`: setuid,
    setgid and file capabilities are given and device nodes made; a restore test declines them."""

    owners: bool
    privileges: bool
    uid: int  # of this process: what a new file has
    gid: int

    @classmethod
    def of_process(cls, *, owners: bool, privileges: bool) -> MetadataRules:
        """For the process that restores."""
        return cls(owners and os.geteuid() == 0, privileges, os.geteuid(), os.getegid())

    def owner(self, node: Planned) -> tuple[int, int]:
        """The owner it is to have."""
        return (node.uid, node.gid) if self.owners else (self.uid, self.gid)

    def mode(self, node: Planned) -> int:
        """The permission bits it is to have."""
        bits = stat.S_IMODE(node.mode)
        stranger = not self.owners and (node.uid, node.gid) != (self.uid, self.gid)
        if (stranger or not self.privileges) and not stat.S_ISDIR(node.mode):
            return bits & ~_PRIVILEGED
        return bits

    def attributes(self, extra: Extra) -> tuple[tuple[bytes, bytes], ...]:
        """The extended attributes it is to have."""
        if self.privileges:
            return extra.extended_attributes
        return tuple(pair for pair in extra.extended_attributes if pair[0] != _CAPABILITIES)

    def is_stranger(self, node: Planned) -> bool:
        """Whether it has an owner that cannot be given to it."""
        return not self.owners and (node.uid, node.gid) != (self.uid, self.gid)


def settle_open(descriptor: int, node: Planned, extra: Extra, rules: MetadataRules) -> list[str]:
    """Set all metadata of an open file or directory; what could not be set, each in a few words."""
    problems: list[str] = []
    if rules.owners:
        try:
            os.fchown(descriptor, node.uid, node.gid)
        except OSError as exc:
            problems.append(f"owner: {exc.strerror}")
    try:
        os.fchmod(descriptor, rules.mode(node))
    except OSError as exc:
        problems.append(f"mode: {exc.strerror}")
    problems += _set_attributes(descriptor, rules.attributes(extra), follow=True)
    try:
        os.utime(descriptor, ns=_times(node, extra))
    except OSError as exc:
        problems.append(f"times: {exc.strerror}")
    return problems


def settle_name(directory: int, node: Planned, name: bytes, extra: Extra, rules: MetadataRules) -> list[str]:
    """As `settle_open`, of what cannot be opened: symlinks, devices, FIFOs, sockets."""
    problems: list[str] = []
    if rules.owners:
        try:
            os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)
        except OSError as exc:
            problems.append(f"owner: {exc.strerror}")
    if not stat.S_ISLNK(node.mode):
        problems += _set_mode_of_name(directory, node, name, rules)
    # the way through the descriptor: there is no setxattr relative to one
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    problems += _set_attributes(path, rules.attributes(extra), follow=False)
    try:
        os.utime(name, ns=_times(node, extra), dir_fd=directory, follow_symlinks=False)
    except OSError as exc:
        problems.append(f"times: {exc.strerror}")
    return problems


def _set_mode_of_name(directory: int, node: Planned, name: bytes, rules: MetadataRules) -> list[str]:
    # chmod relative to a descriptor follows symlinks, so the inode is held first
    try:
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            if stat.S_IFMT(os.fstat(held).st_mode) != stat.S_IFMT(node.mode):
                return ["mode: something else was put in its place"]
            os.chmod(b"/proc/self/fd/%d" % held, rules.mode(node))
        finally:
            os.close(held)
    except OSError as exc:
        return [f"mode: {exc.strerror}"]
    return []


def differences(
    found: os.stat_result, node: Planned, extra: Extra, rules: MetadataRules, *, mtime: bool = True
) -> list[str]:
    """What of the metadata is not as it is to be. A symlink has no mode of its own."""
    wrong = []
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode):
        return ["type"]
    if not stat.S_ISLNK(node.mode) and stat.S_IMODE(found.st_mode) != rules.mode(node):
        wrong.append("mode")
    if rules.owners and (found.st_uid, found.st_gid) != (node.uid, node.gid):
        wrong.append("owner")
    if mtime and found.st_mtime_ns != node.mtime_ns:
        wrong.append("mtime")
    if stat.S_ISBLK(node.mode) or stat.S_ISCHR(node.mode):
        wrong += ["device number"] if found.st_rdev != extra.device else []
    return wrong


def attribute_differences(place: int | bytes, extra: Extra, rules: MetadataRules) -> list[str]:
    """Extended attributes that are missing or have other values."""
    follow = isinstance(place, int)
    wrong = []
    for name, value in rules.attributes(extra):
        try:
            if os.getxattr(place, name, follow_symlinks=follow) != value:
                wrong.append(f"extended attribute {_text(name)}")
        except OSError:
            wrong.append(f"extended attribute {_text(name)}")
    return wrong


def drop_other_attributes(place: int | bytes, extra: Extra, rules: MetadataRules) -> list[str]:
    """Remove what a file that was there before has beyond the snapshot's; the kernel's own stay."""
    wanted = {name for name, _ in rules.attributes(extra)}
    problems = []
    try:
        present = [os.fsencode(name) for name in os.listxattr(place, follow_symlinks=isinstance(place, int))]
    except OSError:
        return []  # a file system without them
    for name in present:
        if name in wanted or name in _KERNEL_ATTRIBUTES:
            continue
        try:
            os.removexattr(place, name, follow_symlinks=isinstance(place, int))
        except OSError as exc:
            problems.append(f"extended attribute {_text(name)} stays: {exc.strerror}")
    return problems


def _set_attributes(
    place: int | bytes, attributes: tuple[tuple[bytes, bytes], ...], *, follow: bool
) -> list[str]:
    problems = []
    for name, value in attributes:
        try:
            os.setxattr(place, name, value, follow_symlinks=follow)
        except OSError as exc:
            if name in _KERNEL_ATTRIBUTES and exc.errno in (errno.ENOTSUP, errno.EINVAL):
                continue  # labels of a machine with another security module mean nothing here
            problems.append(f"extended attribute {_text(name)}: {exc.strerror}")
    return problems


def _times(node: Planned, extra: Extra) -> tuple[int, int]:
    return (node.mtime_ns if extra.atime_ns is None else extra.atime_ns), node.mtime_ns


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
