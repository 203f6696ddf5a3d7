"""How a strategy changes what an encoder reads: control tokens around formulas, positions kept for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matfm.errors import MatfmError
from matfm.models.delta_parts import DeltaSpec
from matfm.tasks.encoding import FormulaEncoder, RowEncoder
from matfm.tasks.huggingface_encoding import HuggingFaceEncoder


def read_for(encoder: RowEncoder, spec: DeltaSpec | None, names: Sequence[str]) -> RowEncoder:
    """The encoder of rows for a backbone with a delta; the same where that changes nothing.

    Args:
        encoder: of the backbone.
        spec: of the delta, None for none.
        names: of the targets, by which the control token of the task is called.

    Raises:
        MatfmError: control tokens for what is no composition of our own tokenizer, or no position is left for rows.
    """
    if spec is None:
        return encoder
    if spec.method == "control":
        if not isinstance(encoder, FormulaEncoder):
            raise MatfmError(
                "the strategy 'control' puts tokens around formulas of a MatBERT of compositions; this backbone reads "
                "something else, so choose prompt"
            )
        return encoder if encoder.controlled else encoder.with_control(names)
    if spec.method in ("prompt", "prefix") and isinstance(encoder, HuggingFaceEncoder):
        if encoder.max_length is not None and encoder.max_length - spec.length < 3:
            raise MatfmError(
                f"the backbone reads {encoder.max_length} tokens, of which a {spec.method} of length {spec.length} "
                "leaves too few; take a shorter one (--set fit.prompt_length=…)"
            )
        return replace(encoder, reserved=spec.length)
    return encoder
