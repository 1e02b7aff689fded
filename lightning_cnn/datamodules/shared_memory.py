"""Data that the processes of one machine hold once, together: the first of them reads, the others look."""

import io
import os
import pickle
import socket
import sys
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")
Place = tuple[str, torch.dtype, tuple[int, ...]]  # a file that is mapped, and what lies in it
SMALL_BYTES = 1 << 14  # tensors up to this size are copied: a mapping takes whole pages
IS_POSSIBLE = sys.platform == "linux"


def share_memory(value: Value, is_first: bool) -> Value:
    """Gives what the first process of each machine has to its other processes; all processes must call it.

    The tensors in it then lie in memory that the processes share. It has no name in any file system: nothing is left
    behind where the processes are killed, and the size of `/dev/shm`, small in containers, is no limit.

    Args:
        value: Anything that can be pickled, with tensors on the CPU; that of the first process counts.
        is_first: Whether this process is the first one of its machine.

    Returns:
        The value. Who writes to its tensors writes to those of the other processes, too.
    """
    group: Any = distributed.new_group(backend="gloo")  # the backend of the training may know GPUs only
    packer = _Packer()
    try:
        said: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(said, (_machine(), packer.pack(value)) if is_first else None, group)
        place = next(place for machine, place in filter(None, said) if machine == _machine())
        unpacked: Value = pickle.loads(_mapped(*place).numpy().data)
        distributed.barrier(group)
    finally:
        packer.close()
        distributed.destroy_process_group(group)
    return unpacked


class _Packer(pickle.Pickler):
    """Pickles, and puts the tensors into memory that other processes can open until `close`."""

    def __init__(self) -> None:
        self._stream = io.BytesIO()
        self._files: list[int] = []
        super().__init__(self._stream, protocol=5)

    def pack(self, value: Any) -> Place:
        """Where the pickled value lies."""
        self.dump(value)
        return self._put(torch.frombuffer(self._stream.getbuffer(), dtype=torch.uint8))

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for each object."""
        if isinstance(obj, Tensor) and obj.nbytes > SMALL_BYTES:
            return _mapped, self._put(obj)
        return NotImplemented

    def close(self) -> None:
        """Lets the memory go with the last process that has mapped it."""
        for file in self._files:
            os.close(file)

    def _put(self, tensor: Tensor) -> Place:
        file = os.memfd_create("lightning_cnn")
        self._files.append(file)
        os.ftruncate(file, tensor.nbytes)
        place = f"/proc/{os.getpid()}/fd/{file}", tensor.dtype, tuple(tensor.shape)
        _mapped(*place).copy_(tensor)
        return place


def _mapped(path: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor that is a file."""
    return torch.from_file(path, shared=True, size=torch.Size(shape).numel(), dtype=dtype).reshape(shape)


def _machine() -> tuple[str, str]:
    """Same for processes that see each other's files under `/proc`."""
    return socket.gethostname(), os.readlink("/proc/self/ns/pid")
