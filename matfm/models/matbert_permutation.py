"""MatBERT as a permutation language model (XLNet, Yang et al. 2019): its encoder, trained in random orders."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.modeling_outputs import MaskedLMOutput

from matfm.core.layout import PackedLayout, PaddedIndex
from matfm.core.objectives import IGNORED, masked_lm_loss
from matfm.core.permutation_lm import FactorisationOrder
from matfm.core.two_streams import TwoStreams
from matfm.errors import MatfmError
from matfm.models.heads import MaskedTokenHead
from matfm.models.matbert import MatBERTModel, MatBERTPreTrainedModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.pretrained import mask_or_ones

# N packed tokens, M predicted tokens, B sequences, T padded length, D width, V vocabulary


class MatBERTForPermutationLM(MatBERTPreTrainedModel):
    """Predicts tokens in any order of their places, each from its place and the tokens that are known before it.

    Both streams run through MatBERT's blocks; beside these and the head of `MatBERTForMaskedLM` there is one learned
    vector, the query's. Its file therefore loads as every other MatBERT class, with the trained encoder.

    Raises:
        MatfmError: the configuration has no positions, without which a query could not say what it asks for.
    """

    _tied_weights_keys = {"lm_head.decoder.weight": "matbert.embed_tokens.weight"}

    def __init__(self, config: MatBERTConfig) -> None:
        if config.position_embedding == "none":
            raise MatfmError(
                "a permutation language model asks for tokens by their place, but model.position_embedding is 'none'; "
                "choose rotary, absolute or sinusoidal"
            )
        super().__init__(config)
        self.matbert = MatBERTModel(config)
        self.embed_query = nn.Embedding(1, config.hidden_size)
        self.lm_head = MaskedTokenHead(config.hidden_size, config.vocab_size, config.layer_norm_eps)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The projection to the vocabulary."""
        return self.lm_head.decoder

    def forward_packed(self, ids_N: Tensor, layout: PackedLayout, order: FactorisationOrder) -> Tensor:
        """The fast path: packed tokens to the query stream's hidden states (M, D) at the predicted places."""
        streams = TwoStreams.join(order, layout)
        hidden_PD = streams.hidden(self.matbert.embed_tokens(ids_N), self.embed_query.weight)
        hidden_PD = self.matbert.embed_positions(hidden_PD, streams.positions_P)
        context = streams.context(hidden_PD, self.matbert.rotary)
        return self.matbert.encoder(hidden_PD, context, streams.queries_M)[-1]

    def logits_packed(self, ids_N: Tensor, layout: PackedLayout, order: FactorisationOrder) -> Tensor:
        """Logits (M, V) of the tokens at `order.positions_M`, from those known earlier."""
        return self.lm_head(self.forward_packed(ids_N, layout, order))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, ranks: Tensor, labels: Tensor
    ) -> MaskedLMOutput:
        """The Hugging Face path: padded (B, T) batches.

        Args:
            input_ids: the tokens, those that are predicted included.
            attention_mask: 1 = real token.
            ranks: rank of each token in its sequence's order, 0 is known first; tokens of equal rank know each other.
            labels: the id of each token that is predicted, -100 elsewhere.

        Returns:
            Mean cross-entropy (nats), and logits (B, T, V), which are zero where nothing is predicted.
        """
        index = PaddedIndex.from_mask(mask_or_ones(attention_mask, input_ids))
        label_N = index.pack(labels)
        positions_M = (label_N != IGNORED).nonzero()[:, 0]
        order = FactorisationOrder(index.pack(ranks), positions_M, label_N[positions_M])
        logits_MV = self.logits_packed(index.pack(input_ids), index.layout, order)
        total, weight = masked_lm_loss(logits_MV, order.labels_M)
        logits_NV = logits_MV.new_zeros(len(label_N), logits_MV.shape[1]).index_copy(0, positions_M, logits_MV)
        return MaskedLMOutput(loss=total / weight, logits=index.unpack(logits_NV))
