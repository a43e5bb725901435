"""`mmha train`: train the models that ship, or the same on data of one's own."""

from __future__ import annotations

import typer

from mmha.cli.printing import examples
from mmha.cli.train_bert import bert
from mmha.cli.train_lm import lm
from mmha.cli.train_tagger import tagger
from mmha.cli.train_translate import translate

app = typer.Typer(
    name="train",
    help="Train a model; Ctrl-C keeps what was learned and --resume goes on.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples(
        "mmha train tagger --out runs/tagger",
        "mmha train tagger --out runs/tagger --resume",
        "mmha train tagger --size small --train my-train.conllu --dev my-dev.conllu --test my-test.conllu",
        "mmha train tagger --encoder shipped --share 0.1 --epochs 20",
        "mmha train lm --out runs/lm --minutes 60",
        "mmha train translate --data help-de --out runs/de --minutes 60",
        "mmha train lm my-novel.txt my-letters.txt --size small --steps 2000",
        "mmha train bert --out runs/bert --minutes 45 --precision bf16-mixed",
        "mmha train bert my-articles.txt --lines --whole-word --steps 20000",
    ),
)
app.command("tagger", short_help="Train the part-of-speech tagger, or a BERT to tag.")(tagger)
app.command("translate", short_help="Train a translator on pairs of sentences.")(translate)
app.command("lm", short_help="Train a causal language model on your texts, or on Shakespeare.")(lm)
app.command("bert", short_help="Pretrain BERT on your texts, on the Brown corpus or on Shakespeare.")(bert)


@app.callback()
def root() -> None:
    """Train a model; Ctrl-C keeps what was learned and --resume goes on."""
