"""Compiles the Triton kernels for sm_90; prints name, dtype, shared memory, registers, and bytes that did not fit."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kontrast import fused, triton_kernels

TYPES = {
    **dict.fromkeys(("a_factor", "c_factor", "a_weights", "c_weights", "log_sums", "out", "slope"), "*fp32"),
    **{"a_keys": "*i64", "c_keys": "*i64", "counts": "*i32", "power_0": "fp32", "power_1": "fp32"},
}
TARGET = GPUTarget("cuda", 90, 32)


def compiled(kernel: Any, rows: str, constants: dict[str, Any]) -> Any:
    types = {**TYPES, "anchors": rows, "candidates": rows}
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    # What a launch finds out of its arguments: pointers, sizes and strides that 16 divides.
    even = ("size", "span", "a_stride", "c_stride", "out_stride", "slope_stride")
    attributes = {
        (n,): [["tt.divisibility", 16]]
        for n, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or name in even
    }
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=TARGET, options={"num_warps": 8, "num_stages": 3})


def used(binary: Any) -> tuple[int, int]:
    """Return registers, and bytes spilled, as the assembler tells them."""
    assembler = Path(next(iter(nvidia.__path__))) / "bin" / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(binary.asm["ptx"], encoding="utf-8")
        command = [str(assembler), "-v", "--gpu-name=sm_90a", str(source), "-o", str(source.with_suffix(".cubin"))]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    (registers,), (spilled,) = re.findall(r"Used (\d+) registers", said), re.findall(r"(\d+) bytes spill stores", said)
    return int(registers), int(spilled)


def main() -> None:
    for rows, bytes_each in (("*bf16", 2), ("*fp32", 4)):
        m, n, k = fused.BLOCKS[bytes_each]
        common = {"WIDE": False, "PRECISION": "tf32x3", "BM": m, "BN": n, "BK": k}
        logits = {**common, "ROW": True, "MATCH": True, "ALIAS": False, "EVEN": True}
        for kernel, constants in (
            (triton_kernels.row_sums, {**logits, "POWERS": 1, "SHIFTED": True}),
            (triton_kernels.slopes, {**logits, "POWERS": 1, "OURS": True, "THEIRS": True}),
            (triton_kernels.slope_rows, {**common, "HALVED": rows == "*bf16"}),
        ):
            binary = compiled(kernel, rows, constants)
            print(kernel.__name__, rows, binary.metadata.shared, *used(binary))


if __name__ == "__main__":
    main()
