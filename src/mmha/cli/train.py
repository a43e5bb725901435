"""`mmha train`: train the models that ship, or the same on data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.printing import examples
from mmha.cli.train_lm import lm
from mmha.cli.training import bar, check_out, fetch

if TYPE_CHECKING:
    from mmha.data.sentence import Sentence
    from mmha.models.tagger import Tagger

app = typer.Typer(
    name="train",
    help="Train a model; Ctrl-C keeps what was learned and --resume goes on.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples(
        "mmha train tagger --out runs/tagger",
        "mmha train tagger --out runs/tagger --resume",
        "mmha train tagger --size small --train my-train.conllu --dev my-dev.conllu --test my-test.conllu",
        "mmha train lm --out runs/lm --minutes 60",
        "mmha train lm my-novel.txt my-letters.txt --size small --steps 2000",
    ),
)
app.command("lm", short_help="Train a causal language model on your texts, or on Shakespeare.")(lm)


@app.callback()
def root() -> None:
    """Train a model; Ctrl-C keeps what was learned and --resume goes on."""


@app.command()
def tagger(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the finished tagger.")] = Path("runs/tagger"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    size: Annotated[str, typer.Option(help="base (ships with mmha) or small.")] = "base",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training set.")] = 8,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    tokens: Annotated[int, typer.Option(min=1, help="Words a step.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Decides the start, the order and the dropout.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    train: Annotated[Path | None, typer.Option(help="CoNLL-U to train on instead of the Brown corpus.")] = None,
    dev: Annotated[Path | None, typer.Option(help="CoNLL-U to choose the best epoch on.")] = None,
    test: Annotated[Path | None, typer.Option(help="CoNLL-U to report on, once, at the end.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the part-of-speech tagger on your CoNLL-U or on the Brown corpus (every 10th file test, the next dev)."""
    from mmha import checks
    from mmha.cli.printing import print_json

    checks.one_of("size", size, ("base", "small"))
    checks.require(checks.number("rate", rate) > 0, "rate", "a learning rate > 0", str(rate))
    check_out(out, resume)
    parts = _parts(train, dev, test)
    out.mkdir(parents=True, exist_ok=True)
    if threads:
        import torch

        torch.set_num_threads(threads)
    from mmha.train.loop import Settings

    model = _new(size, parts[0], seed)
    settings = Settings(epochs=epochs, rate=rate, seed=seed)
    about = {
        "data": str(train or "brown"),
        "digest": _digest(parts[:2]),
        "size": size,
        "epochs": epochs,
        "rate": rate,
        "tokens": tokens,
        "seed": seed,
    }
    result = _train(model, settings, parts, tokens, out, resume, about)
    if json:
        print_json(result)
    else:
        _print(result)


def _parts(train: Path | None, dev: Path | None, test: Path | None) -> list[list[Sentence]]:
    """Train, dev and test sentences; the last may be empty."""
    from mmha.data import brown, conllu, text

    if train is None:
        if dev or test:
            raise ValueError("--train: expected a CoNLL-U file together with --dev and --test, got none")
        return [brown.read(part) for part in brown.split(brown.files(fetch("brown")))]
    if dev is None:
        raise ValueError("--dev: expected a CoNLL-U file to choose the best epoch on, got none")
    parts = []
    for path in (train, dev, test):
        lines = text.read(path).splitlines() if path else []
        parts.append([block.sentence() for block in conllu.parse(lines, str(path))])
        if path and not parts[-1]:
            raise ValueError(f"{path}: expected CoNLL-U sentences, got none")
        if path and not all(s.tags for s in parts[-1]):
            raise ValueError(f"{path}: expected sentences with a tag for every word (column 4), got words without")
    return parts


def _digest(parts: list[list[Sentence]]) -> str:
    """Of what is trained and chosen on: a stopped run goes on with the same words or not at all."""
    import hashlib

    found = hashlib.sha256()
    for part in parts:
        found.update(repr([(s.words, s.tags) for s in part]).encode())
    return found.hexdigest()[:16]


def _new(size: str, train: list[Sentence], seed: int) -> Tagger:
    import torch

    from mmha.data.sentence import UPOS
    from mmha.models import tagger as model

    found = sorted({tag for s in train for tag in s.tags or ()})
    # All universal tags, even unseen ones, so that taggers of different treebanks compare; other sets as they are.
    tags = UPOS if set(found) <= set(UPOS) else found
    lexicon = model.Lexicon.count([s.words for s in train], tags)
    torch.manual_seed(seed)
    return model.Tagger(model.BUILDERS[size](lexicon), lexicon)


def _train(
    model: Tagger,
    settings: Any,
    parts: list[list[Sentence]],
    tokens: int,
    out: Path,
    resume: bool,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Train to the end, write `tagger.json` with the weights of the best epoch, and test these, once."""
    from mmha.models import tagger as models
    from mmha.train import tagging
    from mmha.train.loop import Run

    train, dev, test = parts
    run = Run(model, settings, out, about)
    if resume:
        run.resume()
    batches = tagging.Shuffled(train, model.encode, model.lexicon.tags, tokens, settings.seed)
    with bar(run, "epoch", "dev", lambda score, digits: f"{score:.{digits}%}") as show:
        run.fit(batches, tagging.loss, lambda m: tagging.accuracy(m, dev).value, show)
    model.load_state_dict(run.best)
    result = about | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_words": sum(map(len, train)),
        "best_epoch": run.progress.best_epoch,
        "dev_accuracy": run.progress.best,
        "seconds": round(run.progress.seconds),
    }
    # What is tested is what is shipped: the weights as written, rounded to 8 and 16 bits.
    models.save(model, out / "tagger.json", result, "tagger.safetensors")
    if test:
        result["test_accuracy"] = tagging.accuracy(models.load(out / "tagger.json"), test).value
        models.save(model, out / "tagger.json", result, "tagger.safetensors")
    return result | {"model": str(out / "tagger.json")}


def _print(result: dict[str, Any]) -> None:
    print(f"{result['model']}: {result['parameters']:,} parameters, {result['seconds']} s of training")
    print(f"dev accuracy  {result['dev_accuracy']:.2%} (epoch {result['best_epoch']})")
    if "test_accuracy" in result:
        print(f"test accuracy {result['test_accuracy']:.2%}")
