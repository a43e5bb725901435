"""The attention of other systems over a cache, each bound to buffers that it reads in place: for decode_peers.py.

A peer that is not installed is left out, and why is said; `pip install 'mmha[peers]'` brings them (llama-cpp-python is
compiled on the spot, some minutes).
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmha.bench.cases import Sizes

GGML_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
GGML_ROOM = 2**20  # bytes for tensors' headers, the graph and out, besides the data of q, k and v
ORT_SPINNING = "session.force_spinning_stop"


@dataclass(frozen=True)
class Contender:
    """One way to attend to one problem: what is timed, its result as (B, H, D), and the bytes it has to read.

    holds: what must live as long as the addresses that were handed on.
    """

    name: str
    work: Callable[[], object]
    out: Callable[[], Tensor]
    read: int
    holds: tuple[object, ...] = ()


def onnxruntime(size: Sizes, q: Tensor, k: Tensor, v: Tensor, threads: int) -> list[Contender]:
    """com.microsoft.GroupQueryAttention with a cache in float32, and in int8 with a scale per channel.

    past and present are one buffer, so that a call writes its token and copies nothing. The token is the last of k, v.
    """
    return [ort_contender(size, q, k, v, threads, quantised) for quantised in (False, True)]


def ort_contender(size: Sizes, q: Tensor, k: Tensor, v: Tensor, threads: int, quantised: bool) -> Contender:
    """One session, its inputs and outputs bound to tensors of ours."""
    past, scales = [k.clone(), v.clone()], []
    if quantised:
        scales = [x.abs().amax((0, 2), keepdim=True).div(127).contiguous() for x in past]
        past = [(x / s).round().to(torch.int8) for x, s in zip(past, scales, strict=True)]
    last = [x[:, :, -1:].reshape(size.batch, 1, -1).contiguous() for x in (k, v)]
    lengths = torch.full((size.batch,), size.k_len - 1, dtype=torch.int32)
    out = torch.empty(size.batch, 1, size.heads * size.dim)
    given = {
        "query": q.reshape(size.batch, 1, -1).contiguous(), "key": last[0], "value": last[1],
        "past_key": past[0], "past_value": past[1],
        "seqlens_k": lengths, "total": torch.tensor(size.k_len, dtype=torch.int32),
        **dict(zip(("k_scale", "v_scale"), scales, strict=False)),
    }  # fmt: skip
    made = {"out": out, "present_key": past[0], "present_value": past[1]}
    session = ort_session(size, given, made, threads)
    binding = ort_bound(session, given, made)
    return Contender(
        f"onnxruntime {'int8' if quantised else 'float32'}",
        lambda: session.run_with_iobinding(binding),
        lambda: out.view(size.batch, size.heads, size.dim),
        sum(x.nbytes for x in past),
        tuple(given.values()),
    )


def ort_session(size: Sizes, given: dict[str, Tensor], made: dict[str, Tensor], threads: int) -> Any:
    """GroupQueryAttention alone as a model."""
    names, options = list(given), {"num_heads": size.heads, "kv_num_heads": size.kv_heads}
    if "k_scale" in given:
        names = [*names[:-2], *[""] * 5, *names[-2:]]  # rotary tables, positions, bias and sinks are left out
        options |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    return ort_operator("GroupQueryAttention", names, given, made, options, threads)


def ort_operator(
    operator: str, names: list[str], given: dict[str, Tensor], made: dict[str, Tensor], options: Any, threads: int
) -> Any:
    """One of com.microsoft's operators as a model; names: its inputs in order, "" for one that is left out.

    Its threads stop spinning after a call, or they would disturb the next one's.
    """
    import onnxruntime as ort
    from onnx import TensorProto, helper

    types = {torch.float32: TensorProto.FLOAT, torch.bfloat16: TensorProto.BFLOAT16,
             torch.int8: TensorProto.INT8, torch.int32: TensorProto.INT32}  # fmt: skip

    def infos(tensors: dict[str, Tensor]) -> list[Any]:
        return [helper.make_tensor_value_info(name, types[x.dtype], list(x.shape)) for name, x in tensors.items()]

    node = helper.make_node(operator, names, list(made), domain="com.microsoft", **options)
    model = helper.make_model(
        helper.make_graph([node], "attention", infos(given), infos(made)),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)],
    )
    model.ir_version = 10
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    settings.add_session_config_entry(ORT_SPINNING, "1")
    return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def ort_bound(session: Any, given: dict[str, Tensor], made: dict[str, Tensor]) -> Any:
    """The session's inputs and outputs as tensors of ours, which are neither copied nor kept alive."""
    binding = session.io_binding()
    for name, x in given.items():
        binding.bind_input(name, "cpu", 0, x.numpy().dtype, list(x.shape), x.data_ptr())
    for name, x in made.items():
        binding.bind_output(name, "cpu", 0, x.numpy().dtype, list(x.shape), x.data_ptr())
    return binding


class GgmlParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def ggml() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The two libraries in llama-cpp-python, without its Python code; every function we call is declared."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise ImportError("llama-cpp-python is not installed")
    folder = Path(found.origin).parent / "lib"
    base, cpu = (ctypes.CDLL(str(folder / f"lib{name}.so"), ctypes.RTLD_GLOBAL) for name in ("ggml-base", "ggml-cpu"))
    address, number, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    declared: tuple[tuple[ctypes.CDLL, str, Any, tuple[Any, ...]], ...] = (
        (base, "ggml_init", address, (GgmlParams,)),
        (base, "ggml_free", None, (address,)),
        (base, "ggml_new_tensor_4d", address, (address, number, *[ctypes.c_int64] * 4)),
        (base, "ggml_get_data", address, (address,)),
        (base, "ggml_nbytes", ctypes.c_size_t, (address,)),
        (base, "ggml_quantize_chunk", ctypes.c_size_t,
         (number, address, address, *[ctypes.c_int64] * 3, address)),
        (base, "ggml_flash_attn_ext", address, (*[address] * 5, real, real, real)),
        (base, "ggml_new_graph", address, (address,)),
        (base, "ggml_build_forward_expand", None, (address, address)),
        (base, "ggml_backend_graph_compute", number, (address, address)),
        (cpu, "ggml_backend_cpu_init", address, ()),
        (cpu, "ggml_backend_cpu_set_n_threads", None, (address, number)),
    )  # fmt: skip
    for library, name, result, arguments in declared:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return base, cpu


def llama_cpp(size: Sizes, q: Tensor, k: Tensor, v: Tensor, threads: int) -> list[Contender]:
    """ggml's flash_attn_ext as llama.cpp calls it, with keys and values of a head side by side, in f16 and in q8_0."""
    base, cpu = ggml()
    backend = cpu.ggml_backend_cpu_init()
    cpu.ggml_backend_cpu_set_n_threads(backend, threads)
    return [ggml_contender(base, backend, size, (q, k, v), kind) for kind in ("f16", "q8_0")]


def ggml_contender(
    base: ctypes.CDLL, backend: int, size: Sizes, tensors: tuple[Tensor, Tensor, Tensor], kind: str
) -> Contender:
    """One graph of one operator over tensors in ggml's own memory, which goes with the contender."""
    room = sum(x.nbytes for x in tensors) + 4 * tensors[0].nbytes + GGML_ROOM
    memory = torch.empty(room, dtype=torch.uint8)
    context = base.ggml_init(GgmlParams(room, memory.data_ptr(), False))

    def place(x: Tensor, kind: str) -> tuple[int, int]:
        batch, heads, length, dim = x.shape
        made = base.ggml_new_tensor_4d(context, GGML_TYPES[kind], dim, length, heads, batch)
        data = base.ggml_get_data(made)
        if kind == "f32":
            ctypes.memmove(data, x.data_ptr(), x.nbytes)
        else:
            base.ggml_quantize_chunk(GGML_TYPES[kind], x.data_ptr(), data, 0, batch * heads * length, dim, None)
        return made, base.ggml_nbytes(made)

    (q, _), (k, k_bytes), (v, v_bytes) = (
        place(x.contiguous(), kind if number else "f32") for number, x in enumerate(tensors)
    )
    out = base.ggml_flash_attn_ext(context, q, k, v, None, size.dim**-0.5, 0.0, 0.0)
    graph = base.ggml_new_graph(context)
    base.ggml_build_forward_expand(graph, out)

    def result() -> Tensor:
        shape = (size.batch, size.heads, size.dim)
        floats = (ctypes.c_float * (size.batch * size.heads * size.dim)).from_address(base.ggml_get_data(out))
        return torch.frombuffer(floats, dtype=torch.float32).view(shape).clone()

    def work() -> object:
        return base.ggml_backend_graph_compute(backend, graph)

    return Contender(f"llama.cpp {kind}", work, result, k_bytes + v_bytes, (memory,))
