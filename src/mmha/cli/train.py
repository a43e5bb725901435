"""`mmha train`: train the models that ship, or the same on data of one's own."""

from __future__ import annotations

import typer

from mmha.cli import train_bert, train_lm, train_speech, train_tagger, train_translate
from mmha.cli.printing import examples

app = typer.Typer(
    name="train",
    help="Train a model; Ctrl-C keeps what was learned and --resume goes on.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("mmha train tagger --out runs/tagger", "mmha train tagger --out runs/tagger --resume"),
)
app.command("tagger", short_help="Train the part-of-speech tagger, or a BERT to tag.", epilog=train_tagger.EXAMPLES)(
    train_tagger.tagger
)
app.command("translate", short_help="Train a translator on pairs of sentences.", epilog=train_translate.EXAMPLES)(
    train_translate.translate
)
app.command(
    "lm", short_help="Train a causal language model on your texts, or on Shakespeare.", epilog=train_lm.EXAMPLES
)(train_lm.lm)
app.command("speech", short_help="Train a speech enhancer on speech and noise.", epilog=train_speech.EXAMPLES)(
    train_speech.speech
)
app.command(
    "bert", short_help="Pretrain BERT on your texts, on the Brown corpus or on Shakespeare.", epilog=train_bert.EXAMPLES
)(train_bert.bert)


@app.callback()
def root() -> None:
    """Train a model; Ctrl-C keeps what was learned and --resume goes on."""
