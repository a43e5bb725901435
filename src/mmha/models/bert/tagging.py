"""A tagger on BERT: a linear head on the first piece of each word says its tag.

scores = W·h + b, where h is the last layer's vector of the word's first piece (Devlin et al. 2019, section 5.3 and
appendix A.4). Every sentence stands between [CLS] and [SEP]; one with more pieces than the encoder has positions is
read in parts, whose words do not see the other parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checkpoint, checks
from mmha.models.bert.config import read_config
from mmha.models.bert.files import assembled
from mmha.models.bert.looks import looked_at
from mmha.models.bert.model import Bert
from mmha.models.bert.tokenizer import Tokenizer
from mmha.nn import groups

KIND = "bert-tagger"
DROPOUT = 0.1  # of what is fine-tuned, as the original does, whatever it was pretrained with
MOST_PIECES = 16  # of a longer word the first ones are read
# One kind of quotation mark, as in the texts that encoders are pretrained on: treebanks write `` and ''.
_QUOTES = dict.fromkeys(("``", "''", "“", "”", "„", "«", "»"), '"') | {"‘": "'", "’": "'"}


class Tagger(nn.Module):
    """Scores of every tag for every word; `tag` for words in and tags out.

    Shapes: the numbers of pieces of each word int64 (N,), the pieces int32 (N, P), padded with 0, and the lengths of
    the sentences packed in N → float32 (N, tags).
    Raises: ValueError for an encoder without room for a word between [CLS] and [SEP].
    """

    def __init__(self, encoder: Bert, tokenizer: Tokenizer, tags: Sequence[str]) -> None:
        super().__init__()
        most = encoder.config.positions - 2
        checks.require(most >= 1, "encoder", "one with at least 3 positions", encoder.config.positions)
        self.encoder, self.tokenizer, self.tags = encoder, tokenizer, tuple(tags)
        self.most_pieces = min(MOST_PIECES, most)
        self.dropout = nn.Dropout(encoder.config.dropout)
        self.head = nn.Linear(encoder.config.width, len(self.tags))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def encode(self, sentences: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, list[int]]:
        """What `forward` takes, of words."""
        words = [_QUOTES.get(word, word) for sentence in sentences for word in sentence]
        different = list(dict.fromkeys(words))
        pieces = self.tokenizer.encode_all(different)
        # A word of nothing but control characters has no pieces, and yet a place in its sentence.
        known = {w: p[: self.most_pieces] or [self.tokenizer.unknown] for w, p in zip(different, pieces, strict=True)}
        counts = torch.tensor([len(known[word]) for word in words], dtype=torch.int64)
        widest = max(map(len, known.values()), default=1)
        padded = {word: found + [0] * (widest - len(found)) for word, found in known.items()}
        table = torch.tensor([padded[word] for word in words], dtype=torch.int32).view(-1, widest)
        return counts, table, [len(sentence) for sentence in sentences]

    def forward(self, counts: Tensor, pieces: Tensor, lengths: Sequence[int]) -> Tensor:
        tokens, parts, first = self._sequences(counts, pieces, lengths)
        scores: Tensor = self.head(self.dropout(self.encoder(tokens, parts)[first]))
        return scores

    @torch.no_grad()
    def tag(self, sentences: Sequence[Sequence[str]], tokens: int = 4096) -> list[list[str]]:
        """The best tag of every word of every sentence; `tokens` words go through the model at a time."""
        self.eval()
        result: list[list[str]] = [[] for _ in sentences]
        for group in groups([len(words) for words in sentences], range(len(sentences)), tokens):
            counts, pieces, lengths = self.encode([sentences[i] for i in group])
            best = self(counts, pieces, lengths).argmax(-1).split(lengths)
            for i, found in zip(group, best, strict=True):
                result[i] = [self.tags[t] for t in found.tolist()]
        return result

    @torch.no_grad()
    def looked_at(self, sentence: Sequence[str]) -> Tensor:
        """How much each word looked at each other in the last layer, the mean of its heads.

        A word looks with its first piece and is looked at in all of them; what went to [CLS] and [SEP] is left out.

        Returns: float32 (T, T) for the words that the encoder sees at a time, each row sums to 1.
        """
        self.eval()
        counts, pieces, lengths = self.encode([sentence])
        tokens, parts, first = self._sequences(counts, pieces, lengths)
        seen = int((first < parts[0]).sum()) if parts else 0
        weights = looked_at(self.encoder, tokens[: sum(parts[:1])], parts[:1])[first[:seen]]
        owner = torch.arange(seen).repeat_interleave(counts[:seen])
        words = torch.zeros(seen, seen).index_add_(1, owner, weights[:, 1 : 1 + len(owner)])
        return words / words.sum(1, keepdim=True)

    def _sequences(self, counts: Tensor, pieces: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int], Tensor]:
        """The tokens (M,), the lengths of the sequences packed in them, and where each word's first piece is (N,)."""
        sizes = counts.tolist()
        begins, parts = self._parts(sizes, lengths)
        starts = torch.zeros(len(sizes), dtype=torch.int64)
        starts[begins] = 1
        # Before a word stand all pieces of the words before it, two markers for each part before its own, and a [CLS].
        first = counts.cumsum(0) - counts + 2 * starts.cumsum(0) - 1
        tokens = torch.full((sum(parts),), self.tokenizer.sep, dtype=torch.int64)
        tokens[first[begins] - 1] = self.tokenizer.cls
        real = torch.arange(pieces.shape[1]) < counts[:, None]
        tokens[(first[:, None] + torch.arange(pieces.shape[1]))[real]] = pieces[real].long()
        return tokens, parts, first

    def _parts(self, sizes: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        """At which words a part begins, and how many tokens each part has, its two markers included."""
        most = self.encoder.config.positions
        begins: list[int] = []
        parts: list[int] = []
        word = 0
        for length in lengths:
            room = 0
            for size in sizes[word : word + length]:
                if size > room:
                    begins.append(word)
                    parts.append(2)
                    room = most - 2
                parts[-1] += size
                room -= size
                word += 1
        return begins, parts


def bare(model: Bert, dropout: float = DROPOUT) -> Bert:
    """A copy of the encoder to be fine-tuned: without its heads, which a tagger has no use for, and with dropout."""
    copy = Bert(replace(model.config, parts=(), dropout=dropout, attention_dropout=dropout))
    copy.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("heads.")})
    return copy


def save(model: Tagger, path: Path, about: dict[str, Any], name: str | None = None) -> None:
    """Write the tagger to `path` (.json), tokenizer included, and its weights beside it in 16 bits."""
    document = {
        "model": KIND,
        "about": about,
        "config": asdict(model.encoder.config),
        "tags": list(model.tags),
        "tokenizer": model.tokenizer.definition,
    }
    checkpoint.save(path, {k: v.half() for k, v in model.state_dict().items()}, document, name)


def load(path: Path) -> Tagger:
    """The tagger of a checkpoint.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    document, data = checkpoint.read(path)
    if document.get("model") != KIND:
        raise ValueError(f"{path}: expected a tagger on BERT, got {document.get('model')!r}")
    config = read_config({**document, "model": "bert"}, path)
    tags = document.get("tags")
    if not (isinstance(tags, list) and tags and all(isinstance(tag, str) for tag in tags)):
        raise ValueError(f"{path}: expected a list of tags, got {checks.describe(tags)}")
    try:
        tokenizer = Tokenizer(document["tokenizer"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a tokenizer, got another thing ({error})") from None
    tensors = checkpoint.tensors(data, path)
    encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    model = Tagger(assembled(config, encoder, path), tokenizer, tags)
    try:
        model.head.load_state_dict({k: tensors[f"head.{k}"].float() for k in ("weight", "bias")})
    except (KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path}: expected the weights of a head of {len(tags)} tags, got others ({said})") from None
    return model.eval()
