"""Training with codes by a pursuit: where it starts, and the gradient of one step.

Codes are found on the decoder as it is, and the decoder is trained to rebuild the batch with them held: the
alternation of dictionary learning (Engan, Aase and Husoy 1999), a step of Adam at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode


@torch.no_grad()
def go_on_from(parent: SparseAutoencoder, autoencoder: SparseAutoencoder, scale: float) -> None:
    """Start where one of the same shape ended, whose biases are of activations that `scale` multiplies."""
    autoencoder.decoder.go_on_from(parent.decoder)
    if autoencoder.free is not None and parent.free is not None:
        autoencoder.free.go_on_from(parent.free)
    autoencoder.b_enc.copy_(parent.b_enc * scale)
    autoencoder.b_dec.copy_(parent.b_dec * scale)


def set_gradients(autoencoder: SparseAutoencoder, h: Tensor, code: SparseCode) -> Tensor:
    """ĥ [B, m] of this code of h, and as every `.grad` the gradient of the mean over b of ‖ĥ_b − h_b‖².

    The code is held. Where values are of least squares on the columns that were chosen, the loss is flat in
    them: to hold them leaves nothing out. A free encoder and its bias follow the decoder: their gradient is
    that of the error of their own codes, with the decoder and its bias held. A tied one gets none.
    """
    autoencoder.zero_grad(set_to_none=True)
    decoder = autoencoder.dictionary()
    rebuilt = decoder.synthesize(code) + autoencoder.b_dec
    (rebuilt - h).square().sum(dim=1).mean().backward()
    if autoencoder.free is not None:
        held, offset = decoder.changed(Tensor.detach), autoencoder.b_dec.detach()
        encoder, centred = autoencoder.free.dictionary(), h - offset
        chosen = encoder.correlate_topk(centred, autoencoder.b_enc, autoencoder.k)
        kept = encoder.correlate_at(centred, chosen.index, autoencoder.b_enc, known=chosen.value)
        error = held.synthesize(SparseCode(chosen.index, kept)) - centred
        error.square().sum(dim=1).mean().backward()
    return rebuilt.detach()
