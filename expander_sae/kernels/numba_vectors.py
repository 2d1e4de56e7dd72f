"""Inner loops of the numba kernels, written as explicit vectors.

Samples lie in lanes: a panel [m, 64] holds one coordinate of 64 samples in a row, so that a row
index of the mask fetches 64 neighbouring numbers. One column of W against a panel is then w
multiply-adds of whole vectors whose sums stay in registers, which a compiler does not find from
plain loops, because it cannot prove that the arrays do not overlap.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import Signature
from numba.extending import intrinsic

from expander_sae.machine.piece_sizes import LANES

_VECTOR_BYTES = 64
_CONTRACT = ("contract",)
_INT64 = ir.IntType(64)
_INT32 = ir.IntType(32)


class _Vectors:
    """Lanes of one element type, as a few LLVM vectors."""

    def __init__(self, context: Any, builder: Any, element: Any) -> None:
        self.context, self.builder = context, builder
        self.element = ir.FloatType() if element == types.float32 else ir.DoubleType()
        self.bytes = 4 if element == types.float32 else 8
        self.width = _VECTOR_BYTES // self.bytes
        self.type = ir.VectorType(self.element, self.width)
        self.groups = range(LANES // self.width)

    def pointer(self, kind: Any, array: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, array).data

    def splat(self, scalar: Any, vector_type: Any = None) -> Any:
        vector_type = vector_type or self.type
        first = self.builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, _INT32(0))
        mask = ir.Constant(ir.VectorType(_INT32, vector_type.count), [0] * vector_type.count)
        return self.builder.shuffle_vector(first, ir.Constant(vector_type, ir.Undefined), mask)

    def address(self, base: Any, offset: Any, vector_type: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [offset]), vector_type.as_pointer())

    def load(self, base: Any, offset: Any, vector_type: Any = None) -> Any:
        vector_type = vector_type or self.type
        loaded = self.builder.load(self.address(base, offset, vector_type))
        loaded.align = 4 if vector_type is not self.type else self.bytes
        return loaded

    def store(self, value: Any, base: Any, offset: Any) -> None:
        self.builder.store(value, self.address(base, offset, value.type), align=4)

    def variables(self, start: Any) -> list[Any]:
        """One mutable vector a group, set to `start`; they become registers."""
        slots = [cgutils.alloca_once(self.builder, start.type) for _ in self.groups]
        for slot in slots:
            self.builder.store(start, slot)
        return slots

    def at(self, base: Any, group: int) -> Any:
        return self.builder.add(base, _INT64(group * self.width))

    def column(self, values: Any, rows: Any, width: Any, j: Any, panel: Any, sums: list[Any]) -> None:
        """sums += Σ_t values[j, t] · panel[rows[j, t]]."""
        builder = self.builder
        entry = builder.mul(j, width)
        with cgutils.for_range(builder, width) as loop:
            place = builder.add(entry, loop.index)
            weight = self.splat(builder.load(builder.gep(values, [place])))
            row = builder.sext(builder.load(builder.gep(rows, [place])), _INT64)
            start = builder.mul(row, _INT64(LANES))
            for group in self.groups:
                product = builder.fmul(weight, self.load(panel, self.at(start, group)), flags=_CONTRACT)
                total = builder.fadd(builder.load(sums[group]), product, flags=_CONTRACT)
                builder.store(total, sums[group])


@intrinsic
def score_block(
    typingctx: Any,
    values: Any,
    rows: Any,
    bias: Any,
    panel: Any,
    first: Any,
    last: Any,
    scores: Any,
    maxima: Any,
    block: Any,
) -> Any:
    """scores[j] = bias[j] + w_j · panel for first <= j < last, and maxima[block], the largest of each lane.

    A NaN counts as the largest.
    """
    signature = types.void(values, rows, bias, panel, first, last, scores, maxima, block)

    def codegen(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
        lanes = _Vectors(context, builder, sig.args[0].dtype)
        pointers = [lanes.pointer(sig.args[i], args[i]) for i in (0, 1, 2, 3, 6, 7)]
        values_p, rows_p, bias_p, panel_p, scores_p, maxima_p = pointers
        shape = context.make_array(sig.args[1])(context, builder, args[1]).shape
        width = builder.extract_value(shape, 1)
        start, stop = args[4], args[5]
        largest = lanes.variables(lanes.splat(ir.Constant(lanes.element, float("-inf"))))
        sums = lanes.variables(lanes.splat(ir.Constant(lanes.element, 0.0)))
        with cgutils.for_range(builder, builder.sub(stop, start)) as loop:
            j = builder.add(start, loop.index)
            initial = lanes.splat(builder.load(builder.gep(bias_p, [j])))
            for slot in sums:
                builder.store(initial, slot)
            lanes.column(values_p, rows_p, width, j, panel_p, sums)
            out = builder.mul(j, _INT64(LANES))
            for group in lanes.groups:
                total, held = builder.load(sums[group]), builder.load(largest[group])
                lanes.store(total, scores_p, lanes.at(out, group))
                larger = builder.fcmp_ordered(">", total, held)
                replaces = builder.or_(larger, builder.fcmp_unordered("uno", total, total))
                builder.store(builder.select(replaces, total, held), largest[group])
        out = builder.mul(args[8], _INT64(LANES))
        for group in lanes.groups:
            lanes.store(builder.load(largest[group]), maxima_p, lanes.at(out, group))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def best_columns(
    typingctx: Any, values: Any, rows: Any, panel: Any, absolute: Any, best: Any, chosen: Any
) -> Any:
    """best[lane], the largest w_j · panel over all j, or |w_j · panel| if `absolute`; chosen[lane], that j.

    The lowest j among equals; a NaN is never chosen.
    """
    signature = types.void(values, rows, panel, absolute, best, chosen)

    def codegen(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
        lanes = _Vectors(context, builder, sig.args[0].dtype)
        values_p, rows_p, panel_p, best_p, chosen_p = (
            lanes.pointer(sig.args[i], args[i]) for i in (0, 1, 2, 4, 5)
        )
        shape = context.make_array(sig.args[1])(context, builder, args[1]).shape
        n, width = builder.extract_value(shape, 0), builder.extract_value(shape, 1)
        integers = ir.VectorType(_INT32, lanes.width)
        negative = lanes.splat(ir.Constant(lanes.element, -0.0))
        zero = lanes.splat(ir.Constant(lanes.element, 0.0))
        with_sign = builder.icmp_signed("==", args[3], ir.Constant(args[3].type, 0))
        largest = lanes.variables(lanes.splat(ir.Constant(lanes.element, float("-inf"))))
        holder = lanes.variables(lanes.splat(_INT32(0), integers))
        sums = lanes.variables(zero)
        with cgutils.for_range(builder, n) as loop:
            for slot in sums:
                builder.store(zero, slot)
            lanes.column(values_p, rows_p, width, loop.index, panel_p, sums)
            name = lanes.splat(builder.trunc(loop.index, _INT32), integers)
            for group in lanes.groups:
                total, held = builder.load(sums[group]), builder.load(largest[group])
                flipped = builder.fsub(negative, total)
                size = builder.select(builder.fcmp_ordered(">", total, flipped), total, flipped)
                total = builder.select(with_sign, total, size)
                larger = builder.fcmp_ordered(">", total, held)
                builder.store(builder.select(larger, total, held), largest[group])
                builder.store(builder.select(larger, name, builder.load(holder[group])), holder[group])
        for group in lanes.groups:
            lanes.store(builder.load(largest[group]), best_p, lanes.at(_INT64(0), group))
            lanes.store(builder.load(holder[group]), chosen_p, lanes.at(_INT64(0), group))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def lanes_reaching(typingctx: Any, scores: Any, j: Any, threshold: Any) -> Any:
    """Bit l is set where scores[j, l] >= threshold[l], or where it is NaN."""
    signature = types.uint64(scores, j, threshold)

    def codegen(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
        lanes = _Vectors(context, builder, sig.args[0].dtype)
        scores_p, threshold_p = lanes.pointer(sig.args[0], args[0]), lanes.pointer(sig.args[2], args[2])
        start = builder.mul(args[1], _INT64(LANES))
        bits = _INT64(0)
        for group in lanes.groups:
            limit = lanes.load(threshold_p, lanes.at(_INT64(0), group))
            reaching = builder.fcmp_unordered(">=", lanes.load(scores_p, lanes.at(start, group)), limit)
            part = builder.zext(builder.bitcast(reaching, ir.IntType(lanes.width)), _INT64)
            bits = builder.or_(bits, builder.shl(part, _INT64(group * lanes.width)))
        return bits

    return signature, codegen


@intrinsic
def lowest_bit(typingctx: Any, bits: Any) -> Any:
    """Number of zeros below the lowest set bit of a uint64."""
    signature = types.int64(types.uint64)

    def codegen(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return signature, codegen
