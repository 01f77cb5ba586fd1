"""Triton kernels of the contrast engine: log-sums of negatives, their slopes on one tile, and the slopes' product.

A pair's logit is ``product of rows x anchor's factor x candidate's factor``; whether it is a negative is read from the
keys. Rows may be float32, float16 or bfloat16; products of half rows are exact, and everything is summed up in float32.
Nothing is added to by two programs, so results do not depend on the order in which programs run.

Shapes: A anchors, C candidates, D embedding size, P powers (1 or 2), N splits of the candidates, K keys (row, match,
alias). A program has BM rows and BN columns, and takes BK of the summed dimension at a time.
"""

# Triton has no types, and its functions are not Python's.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# pyright: reportArgumentType=false, reportAssignmentType=false

import triton.language as tl
from triton import jit

__all__ = ["row_sums", "slope_rows", "slopes"]


@jit
def _multiplied(x, y, total, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    """Add the product of two tiles of one dtype to `total`; `WIDE`: as float32, where half types have no product."""
    if WIDE:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, total, input_precision=PRECISION)


@jit
def _products(
    anchors, candidates, rows, columns, a_count, c_count, size,
    EVEN: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return the products [BM, BN] of rows; those beyond the end repeat the last, and are to be masked."""
    total = tl.zeros((BM, BN), dtype=tl.float32)
    first = tl.minimum(rows, a_count - 1).to(tl.int64)[:, None] * size
    second = tl.minimum(columns, c_count - 1).to(tl.int64)[:, None] * size
    for begin in range(0, size, BK):
        at = begin + tl.arange(0, BK)[None, :]
        if EVEN:
            x = tl.load(anchors + first + at)
            y = tl.load(candidates + second + at)
        else:
            x = tl.load(anchors + first + at, mask=at < size, other=0.0)
            y = tl.load(candidates + second + at, mask=at < size, other=0.0)
        total = _multiplied(x, tl.trans(y), total, WIDE, PRECISION)
    return total


@jit
def _struck(logits, ours, theirs, ours_stride, theirs_stride, rows, columns, a_count, c_count, KEY: tl.constexpr):
    """Return the logits with -inf where a key of both sides is equal; -1 equals nothing."""
    first = tl.load(ours + KEY * ours_stride + rows, mask=rows < a_count, other=-1)[:, None]
    second = tl.load(theirs + KEY * theirs_stride + columns, mask=columns < c_count, other=-1)[None, :]
    return tl.where((first == second) & (first != -1), float("-inf"), logits)


@jit
def _logits(
    anchors, candidates, a_factor, c_factor, a_keys, c_keys, rows, columns, a_count, c_count, size, a_stride, c_stride,
    ROW: tl.constexpr, MATCH: tl.constexpr, ALIAS: tl.constexpr,
    EVEN: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return a tile's logits, -inf where a pair is no negative: its exponential is then 0, and so is its slope."""
    logits = _products(anchors, candidates, rows, columns, a_count, c_count, size, EVEN, WIDE, PRECISION, BM, BN, BK)
    logits = logits * tl.load(a_factor + rows, mask=rows < a_count, other=0.0)[:, None]
    logits = logits * tl.load(c_factor + columns, mask=columns < c_count, other=0.0)[None, :]
    logits = tl.where((columns < c_count)[None, :], logits, float("-inf"))
    if ROW:
        logits = _struck(logits, a_keys, c_keys, a_stride, c_stride, rows, columns, a_count, c_count, 0)
    if MATCH:
        logits = _struck(logits, a_keys, c_keys, a_stride, c_stride, rows, columns, a_count, c_count, 1)
    if ALIAS:
        logits = _struck(logits, a_keys, c_keys, a_stride, c_stride, rows, columns, a_count, c_count, 2)
    return logits


@jit
def row_sums(
    anchors, candidates, a_factor, c_factor, a_keys, c_keys, log_sums, counts,
    a_count, c_count, size, span, power_0, power_1,
    ROW: tl.constexpr, MATCH: tl.constexpr, ALIAS: tl.constexpr,
    POWERS: tl.constexpr, SHIFTED: tl.constexpr,
    EVEN: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write log sum exp(power x logit) over the negatives among `span` candidates, [N, P, A], and their number [N, A].

    Unshifted, exponentials are taken as they are; else a running maximum is taken off first.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    top = tl.full((BM,), float("-inf"), dtype=tl.float32)
    first = tl.zeros((BM,), dtype=tl.float32)
    second = tl.zeros((BM,), dtype=tl.float32)
    count = tl.zeros((BM,), dtype=tl.int32)
    for begin in range(split * span, tl.minimum((split + 1) * span, c_count), BN):
        logits = _logits(
            anchors, candidates, a_factor, c_factor, a_keys, c_keys, rows, begin + tl.arange(0, BN),
            a_count, c_count, size, a_count, c_count, ROW, MATCH, ALIAS, EVEN, WIDE, PRECISION, BM, BN, BK,
        )  # fmt: skip
        count += tl.sum((logits != float("-inf")).to(tl.int32), 1)
        if SHIFTED:
            new = tl.maximum(top, tl.max(logits, 1))
            shift = tl.where(new == float("-inf"), 0.0, new)
            logits = logits - shift[:, None]
            first = first * tl.exp(power_0 * (top - shift)) + tl.sum(tl.exp(power_0 * logits), 1)
            if POWERS == 2:
                second = second * tl.exp(power_1 * (top - shift)) + tl.sum(tl.exp(power_1 * logits), 1)
            top = new
        else:
            first += tl.sum(tl.exp(power_0 * logits), 1)
            if POWERS == 2:
                second += tl.sum(tl.exp(power_1 * logits), 1)
    shift = tl.zeros((BM,), dtype=tl.float32)
    if SHIFTED:
        shift = tl.where(top == float("-inf"), 0.0, top)
    place = split.to(tl.int64) * POWERS * a_count + rows
    tl.store(log_sums + place, tl.log(first) + power_0 * shift, mask=rows < a_count)
    if POWERS == 2:
        tl.store(log_sums + place + a_count, tl.log(second) + power_1 * shift, mask=rows < a_count)
    tl.store(counts + split.to(tl.int64) * a_count + rows, count, mask=rows < a_count)


@jit
def _weighted(logits, weights, index, inside, stride, power_0, power_1, POWERS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return sum over powers of weight x exp(power x logit - log-sum): of the tile's rows, or of its columns."""
    axis: tl.constexpr = 0 if COLUMNS else 1
    weight = tl.expand_dims(tl.load(weights + index, mask=inside, other=0.0), axis)
    whole = tl.expand_dims(tl.load(weights + stride + index, mask=inside, other=0.0), axis)
    total = weight * tl.exp(power_0 * logits - whole)
    if POWERS == 2:
        weight = tl.expand_dims(tl.load(weights + 2 * stride + index, mask=inside, other=0.0), axis)
        whole = tl.expand_dims(tl.load(weights + 3 * stride + index, mask=inside, other=0.0), axis)
        total += weight * tl.exp(power_1 * logits - whole)
    return total


@jit
def slopes(
    anchors, candidates, a_factor, c_factor, a_keys, c_keys, a_weights, c_weights, out,
    a_count, c_count, size, a_stride, c_stride, out_stride, power_0, power_1,
    ROW: tl.constexpr, MATCH: tl.constexpr, ALIAS: tl.constexpr,
    POWERS: tl.constexpr, OURS: tl.constexpr, THEIRS: tl.constexpr,
    EVEN: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write d loss / d logit of a tile's pairs, times the column's factor, [A, C] with a stride.

    Args:
        a_weights: of the rows' own sums, [2 P, A]: weight and log-sum of each power; read if `OURS`.
        c_weights: likewise of the columns'; read if `THEIRS`: the rows are then the negatives of the columns. Both for
            rows against themselves.
        a_stride: between rows of `a_keys` and `a_weights`; `c_stride` of the columns'.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    logits = _logits(
        anchors, candidates, a_factor, c_factor, a_keys, c_keys, rows, columns,
        a_count, c_count, size, a_stride, c_stride, ROW, MATCH, ALIAS, EVEN, WIDE, PRECISION, BM, BN, BK,
    )  # fmt: skip
    total = tl.zeros((BM, BN), dtype=tl.float32)
    if OURS:
        total += _weighted(logits, a_weights, rows, rows < a_count, a_stride, power_0, power_1, POWERS, False)
    if THEIRS:
        total += _weighted(logits, c_weights, columns, columns < c_count, c_stride, power_0, power_1, POWERS, True)
    total = total * tl.load(c_factor + columns, mask=columns < c_count, other=0.0)[None, :]
    place = rows.to(tl.int64)[:, None] * out_stride + columns[None, :]
    tl.store(out + place, total, mask=(rows < a_count)[:, None] & (columns < c_count)[None, :])


@jit
def slope_rows(
    slope, candidates, out, a_count, c_count, size, slope_stride,
    HALVED: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Add slopes [A, C] times candidates [C, D] to `out` [A, D], float32.

    `HALVED`: candidates are bfloat16, and a slope is the sum of two of these, good to 16 bits: two fast products.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    first = tl.minimum(rows, a_count - 1).to(tl.int64)[:, None] * slope_stride
    second = tl.minimum(columns, size - 1)[None, :]
    for begin in range(0, c_count, BK):
        at = begin + tl.arange(0, BK)
        x = tl.load(slope + first + at[None, :], mask=(at < c_count)[None, :], other=0.0)
        y = tl.load(candidates + at.to(tl.int64)[:, None] * size + second, mask=(at < c_count)[:, None], other=0.0)
        if HALVED:
            high = x.to(tl.bfloat16)
            total = _multiplied(high, y, total, WIDE, PRECISION)
            total = _multiplied((x - high.to(tl.float32)).to(tl.bfloat16), y, total, WIDE, PRECISION)
        else:
            total = _multiplied(x, y.to(tl.float32), total, False, PRECISION)
    place = rows.to(tl.int64)[:, None] * size + columns[None, :]
    inside = (rows < a_count)[:, None] & (columns < size)[None, :]
    tl.store(out + place, tl.load(out + place, mask=inside, other=0.0) + total, mask=inside)
