"""The other side of the grader: runs one submitted cell in a process that may compute, and nothing else.

Started as a script, in isolated mode, with a request on standard input and the number of an open file for the answers.
It imports nothing of the project, and what it writes is JSON: whoever reads it need not trust it. The guard stops
accidents and pranks; against somebody who studies it, put a container around the grader.
"""

import contextlib
import importlib.util
import json
import math
import os
import sys

MEMORY = 2 << 30  # bytes beyond what the imports take
CPU_SECONDS = 30
ANSWER_BYTES = 64 << 20
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READS = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv"}
DENIED = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "fcntl.", "signal.", "tempfile.", "urllib.")


def encode(value):
    """A number, text, tensor or array [...], or a list of these, as JSON can hold it; TypeError for anything else."""
    import numpy
    import torch

    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    if isinstance(value, (torch.Tensor, numpy.ndarray)):
        tensor = torch.as_tensor(value).detach().cpu()
        kind = {"numbers": tensor.double().flatten().tolist(), "shape": list(tensor.shape)}
        return {**kind, "dtype": str(tensor.dtype).removeprefix("torch."), "array": isinstance(value, numpy.ndarray)}
    raise TypeError(f"returned a {type(value).__name__}, which is neither a number, a text, a tensor nor a list")


def decode(value):
    """The inverse of `encode`; tuples come back as lists."""
    import torch

    if isinstance(value, dict):
        numbers = torch.tensor(value["numbers"], dtype=torch.float64).reshape(value["shape"])
        tensor = numbers.to(getattr(torch, value["dtype"]))
        return tensor.numpy() if value["array"] else tensor
    return [decode(part) for part in value] if isinstance(value, list) else value


def limit():
    """Memory, seconds, processes and the size of a file; without root's rights where it had them."""
    import resource

    def at_most(name, bound):
        kind = getattr(resource, name, None)
        if kind is not None:
            with contextlib.suppress(ValueError, OSError):  # a system that knows the limit but not this use of it
                resource.setrlimit(kind, (bound, bound))

    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            at_most("RLIMIT_AS", int(file.read().split()[0]) * resource.getpagesize() + MEMORY)
    at_most("RLIMIT_CPU", math.ceil(sum(os.times()[:2])) + CPU_SECONDS)
    at_most("RLIMIT_FSIZE", ANSWER_BYTES)
    at_most("RLIMIT_CORE", 0)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    at_most("RLIMIT_NPROC", 0)


def guard(closed):
    """An audit hook, which nothing can take off again: no writing, no process, no network, no file below `closed`."""
    closed = tuple(os.path.realpath(folder) + os.sep for folder in closed)
    realpath, fspath = os.path.realpath, os.fspath

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & WRITING):
                raise PermissionError("a graded function writes no file")
            if not isinstance(path, int) and realpath(os.fsdecode(fspath(path))).startswith(closed):
                raise PermissionError("the library isn't there while a submission is graded: write it out")
        elif event.startswith(DENIED) and event not in READS:
            raise PermissionError(f"a graded function may compute only, and this asked for {event}")

    sys.addaudithook(hook)


def answer(function, call):
    """What one call gives: {"value"} or {"error", "message"}; with `gradient` that of the sum, for one argument."""
    import torch

    try:
        arguments = [decode(value) for value in call["arguments"]]
        place = call.get("gradient")
        if place is None:
            return {"value": encode(function(*arguments))}
        arguments[place].requires_grad_()
        (slope,) = torch.autograd.grad(function(*arguments).sum(), arguments[place], allow_unused=True)
        return {"value": encode(torch.zeros_like(arguments[place]) if slope is None else slope)}
    except BaseException as error:  # whatever it was, it is this call's result
        return {"error": type(error).__name__, "message": str(error)[:500]}


def main():
    import collections
    import functools
    import itertools

    import numpy
    import torch

    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    warm = torch.ones(1, requires_grad=True)
    torch.autograd.grad(warm.exp().sum(), warm)  # starts what autograd starts once
    out = int(sys.argv[1])
    given = {"math": math, "itertools": itertools, "functools": functools, "collections": collections}
    given |= {"np": numpy, "torch": torch, "F": torch.nn.functional, "__name__": "submission"}
    closed = list(request["closed"])
    for name in request["absent"]:
        spec = importlib.util.find_spec(name)  # where this process would find it, installed elsewhere
        closed += list(spec.submodule_search_locations or []) if spec else []
        sys.modules[name] = None
    dumps, write = json.dumps, os.write  # the submission may replace those of the modules
    limit()
    guard(closed)
    try:
        exec(compile(request["source"], "<submission>", "exec"), given)
        function = given[request["function"]]
        answers = [answer(function, call) for call in request["calls"]]
    except BaseException as error:
        answers = [{"error": type(error).__name__, "message": str(error)[:500]}] * len(request["calls"])
    text = dumps(answers).encode()
    while text:
        text = text[write(out, text) :]


if __name__ == "__main__":
    main()
