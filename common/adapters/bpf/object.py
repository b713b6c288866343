"""A compiled eBPF object in the kernel: its maps and programs."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ctypes import byref, c_uint32, create_string_buffer
from pathlib import Path
from typing import NamedTuple

from common.adapters.bpf.layout import Layout
from common.adapters.bpf.libbpf import BpfError, Library, TestRunOptions
from common.adapters.bpf.ring import Ring

# No room: in the map, or at this moment in the memory that the kernel sets aside for maps.
FULL = (errno.E2BIG, errno.ENOMEM, errno.EBUSY)
# What an object file that is not there tells of this installation.
UNBUILT = (
    "(it is built with the programs: apt-get install clang libbpf-dev linux-libc-dev, and install "
    "them again; in a checkout: make bpf)"
)
BATCH = 256  # records read at once


class Map:
    """A map of fixed key and value sizes; keys and values are bytes."""

    def __init__(self, library: Library, fd: int, key_size: int, value_size: int) -> None:
        self._functions = library.functions
        self.fd = fd
        self._key_size, self._value_size = key_size, value_size
        self._value = create_string_buffer(value_size)

    def put(self, key: bytes, value: bytes) -> bool:
        """Write a record; False where the map is full. Raises BpfError for anything else."""
        if self._functions.bpf_map_update_elem(self.fd, key, value, 0) == 0:
            return True
        if (error := ctypes.get_errno()) in FULL:
            return False
        raise BpfError(f"map: {os.strerror(error)}")

    def get(self, key: bytes) -> bytes | None:
        if self._functions.bpf_map_lookup_elem(self.fd, key, self._value) != 0:
            return None
        return self._value.raw

    def take(self, key: bytes) -> bytes | None:
        """Remove a record, if there is one, and give it."""
        if self._functions.bpf_map_lookup_and_delete_elem(self.fd, key, self._value) != 0:
            return None
        return self._value.raw

    def remove(self, key: bytes) -> None:
        """Remove a record, if there is one."""
        self._functions.bpf_map_delete_elem(self.fd, key)

    def keys(self) -> Iterator[bytes]:
        """Keys of all records that stay; those written or removed meanwhile may be missing."""
        return (key for key, _ in self.items())

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Those records themselves, as they were when they were read: a batch at a time.

        In batches, whose place is kept by hash bucket: with a key for the place the kernel would
        begin again whenever that key is gone."""
        room, done, place = BATCH, False, None
        following = create_string_buffer(max(self._key_size, 4))
        while not done:
            keys, values = (
                create_string_buffer(room * size) for size in (self._key_size, self._value_size)
            )
            count = c_uint32(room)
            result = self._functions.bpf_map_lookup_batch(
                self.fd, place, following, keys, values, byref(count), None
            )
            if result == -errno.ENOSPC:  # in a single bucket
                room *= 2
                continue
            done = result == -errno.ENOENT
            if result != 0 and not done:
                raise BpfError(f"map: {os.strerror(-result)}")
            place = following
            found, held = keys.raw, values.raw
            for at in range(count.value):
                key, value = at * self._key_size, at * self._value_size
                yield (
                    found[key : key + self._key_size],
                    held[value : value + self._value_size],
                )


class Totals:
    """Packets and bytes by kind, which each processor has its own of: see counters.h."""

    def __init__(self, loaded: Object, names: Sequence[tuple[str, str]]) -> None:
        """``names`` are those of a kind's packets and of its bytes, in the order of the kinds."""
        self._map = loaded.map("totals", 4, 16 * loaded.processors())
        self._names = names

    def read(self) -> dict[str, int]:
        """The sums, by name; without those that have no name."""
        sums = {}
        for kind, (packets, size) in enumerate(self._names):
            values = self._map.get(kind.to_bytes(4, sys.byteorder))
            assert values is not None, "every index of an array is there"
            numbers = memoryview(values).cast("Q")
            sums[packets], sums[size] = sum(numbers[::2]), sum(numbers[1::2])
        sums.pop("", None)
        return sums


class Ran(NamedTuple):
    """A program's return value, the packet as it left it, and the nanoseconds that it took."""

    verdict: int
    packet: bytes
    nanoseconds: int


class Object:
    """An object file, loaded: the verifier has accepted it. Raises BpfError with its reason.

    ``sizes`` are the maps' numbers of entries where they differ from the file's, ``pins`` the paths
    under which maps are kept beyond this process, and adopted where they are there already.
    """

    def __init__(
        self,
        library: Library,
        path: Path,
        layouts: Sequence[Layout] = (),
        sizes: Mapping[str, int] | None = None,
        pins: Mapping[str, str] | None = None,
    ) -> None:
        self._library, self._path = library, path
        functions = self._functions = library.functions
        library.said = ""
        self._object = functions.bpf_object__open_file(str(path).encode(), None)
        if not self._object:
            raise BpfError(f"{path}: {os.strerror(ctypes.get_errno())} {UNBUILT}")
        try:
            for layout in layouts:
                layout.check(library, functions.bpf_object__btf(self._object))
            for name, size in (sizes or {}).items():
                functions.bpf_map__set_max_entries(self._map(name), size)
            for name, pin in (pins or {}).items():
                functions.bpf_map__set_pin_path(self._map(name), pin.encode())
            if (result := functions.bpf_object__load(self._object)) != 0:
                raise BpfError(f"{path.name}: {os.strerror(-result)}: {_reason(library.said)}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; what is attached or pinned stays."""
        self._functions.bpf_object__close(self._object)

    def map(self, name: str, key_size: int, value_size: int) -> Map:
        fd = self._functions.bpf_map__fd(self._map(name))
        return Map(self._library, fd, key_size, value_size)

    def ring(self, name: str) -> Ring:
        return Ring(self._library, self._functions.bpf_map__fd(self._map(name)))

    def processors(self) -> int:
        """How many values a per-processor map has for each key."""
        count: int = self._functions.libbpf_num_possible_cpus()
        return count

    def program(self, name: str) -> int:
        """The file descriptor of a program."""
        fd: int = self._functions.bpf_program__fd(self._program(name))
        return fd

    def pin(self, program: str, path: str) -> None:
        """Give a program a name under /sys/fs/bpf."""
        if (result := self._functions.bpf_program__pin(self._program(program), path.encode())) != 0:
            raise BpfError(f"{path}: {os.strerror(-result)}")

    def run(self, program: str, packet: bytes, context: bytes = b"", times: int = 1) -> Ran:
        """What a program makes of a packet (BPF_PROG_TEST_RUN), the last of so many ``times``.
        ``context`` is the beginning of a struct __sk_buff, where not all of it is to be zero."""
        out = create_string_buffer(len(packet) + 256)
        data = create_string_buffer(packet, len(packet))
        options = TestRunOptions(
            sz=ctypes.sizeof(TestRunOptions),
            data_in=ctypes.addressof(data),
            data_out=ctypes.addressof(out),
            data_size_in=len(packet),
            data_size_out=len(out),
            repeat=times,
        )
        if context:
            given = create_string_buffer(context, len(context))
            options.ctx_in, options.ctx_size_in = ctypes.addressof(given), len(context)
        result = self._functions.bpf_prog_test_run_opts(self.program(program), byref(options))
        if result != 0:
            raise BpfError(f"{program}: {os.strerror(-result)}")
        return Ran(options.retval, out.raw[: options.data_size_out], options.duration)

    def _map(self, name: str) -> int:
        found: int | None = self._functions.bpf_object__find_map_by_name(
            self._object, name.encode()
        )
        if not found:
            raise BpfError(f"{self._path.name} has no map {name}")
        return found

    def _program(self, name: str) -> int:
        found: int | None = self._functions.bpf_object__find_program_by_name(
            self._object, name.encode()
        )
        if not found:
            raise BpfError(f"{self._path.name} has no program {name}")
        return found


def _reason(said: str) -> str:
    """The verifier's last words, without the instructions that led there."""
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "processed" not in line and "END PROG" not in line]
    return " ".join(told[-3:]) or "no reason given"


def load_adopting(
    path: Path, layouts: Sequence[Layout], sizes: Mapping[str, int], pins: Mapping[str, Path]
) -> Object:
    """The object, with what an earlier run left in the pinned maps; those of another size are made
    anew. Other pins in the directory, of other versions, are removed."""
    kept = list(pins.values())
    names = {name: str(pin) for name, pin in pins.items()}
    try:
        for directory in {pin.parent for pin in kept}:
            directory.mkdir(parents=True, exist_ok=True)
            for stale in set(directory.iterdir()) - set(kept):
                stale.unlink()
    except OSError as error:
        text = f"{error.filename}: {error.strerror} (mount -t bpf bpf /sys/fs/bpf)"
        raise BpfError(text) from None
    try:
        return _loaded(path, layouts, sizes, names)
    except BpfError:
        for directory in {pin.parent for pin in kept}:
            with suppress(OSError):  # there is something in it
                directory.rmdir()
        raise


def _loaded(
    path: Path, layouts: Sequence[Layout], sizes: Mapping[str, int], pins: Mapping[str, str]
) -> Object:
    library = Library()
    there = {name: Path(pin) for name, pin in pins.items() if Path(pin).exists()}
    resized = [
        pin for name, pin in there.items() if name in sizes and _size(library, pin) != sizes[name]
    ]
    for pin in resized:  # and no other: what that holds goes on
        pin.unlink()
    try:
        return Object(library, path, layouts, sizes, pins)
    except BpfError:
        if len(resized) == len(there):
            raise
    for pin in there.values():
        pin.unlink(missing_ok=True)
    return Object(library, path, layouts, sizes, pins)


def _size(library: Library, pin: Path) -> int | None:
    """For how many records a pinned map has room; None where that is not to be had."""
    fd: int = library.functions.bpf_obj_get(str(pin).encode())
    if fd < 0:
        return None
    try:
        told = Path(f"/proc/self/fdinfo/{fd}").read_text()
    except OSError:
        return None
    finally:
        os.close(fd)
    found = re.search(r"^max_entries:\s*(\d+)$", told, re.MULTILINE)
    return None if found is None else int(found[1])
