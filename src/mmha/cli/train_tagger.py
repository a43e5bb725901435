"""`mmha train tagger`: train the tagger that ships, or fine-tune a BERT to tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.encoders import load
from mmha.cli.printing import examples
from mmha.cli.training import bar, check_out, fetch

if TYPE_CHECKING:
    from mmha.data.sentence import Sentence

EXAMPLES = examples(
    "mmha train tagger --out runs/tagger",
    "mmha train tagger --out runs/tagger --resume",
    "mmha train tagger --size small --train my-train.conllu --dev my-dev.conllu --test my-test.conllu",
    "mmha train tagger --encoder shipped --share 0.1 --epochs 20",
)

FILE, TENSORS = "tagger.json", "tagger.safetensors"
RATE, ENCODER_RATE, HEAD_FACTOR = 2e-3, 5e-4, 4.0


def tagger(
    out: Annotated[
        Path, typer.Option("--out", "--output", help="Folder for checkpoints and the finished tagger.")
    ] = Path("runs/tagger"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    size: Annotated[str | None, typer.Option(help="base (ships with mmha, default) or small.")] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Fine-tune this BERT; shipped: the one in mmha.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="With --encoder: its sizes and tokens, but random weights.")
    ] = False,
    share: Annotated[float, typer.Option(help="Part of the sentences to train and choose on, above 0 to 1.")] = 1.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training set.")] = 8,
    rate: Annotated[
        float | None, typer.Option(help=f"Highest learning rate.  [default: {RATE}; of an encoder {ENCODER_RATE}]")
    ] = None,
    head_rate: Annotated[
        float | None, typer.Option(help=f"With --encoder: that of the new layer.  [default: {HEAD_FACTOR:g} x --rate]")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Words a step.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Decides the start, the order, the dropout and the share.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    train: Annotated[Path | None, typer.Option(help="CoNLL-U to train on instead of the Brown corpus.")] = None,
    dev: Annotated[Path | None, typer.Option(help="CoNLL-U to choose the best epoch on.")] = None,
    test: Annotated[Path | None, typer.Option(help="CoNLL-U to report on, once, at the end.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the part-of-speech tagger on your CoNLL-U or on the Brown corpus (every 10th file test, the next dev)."""
    from mmha.cli.printing import print_json

    job = Job(encoder, from_scratch, size, share, rate, head_rate, epochs, tokens, seed, out)
    job.check()
    check_out(out, resume)
    parts = read(train, dev, test)
    if threads:
        import torch

        torch.set_num_threads(threads)
    result = job.run(parts, str(train or "brown"), resume)
    if json:
        print_json(result)
    else:
        _print(result)


@dataclass(frozen=True)
class Job:
    """One training: the options of the command, None where the user left them open."""

    encoder: str | None
    from_scratch: bool
    size: str | None
    share: float
    rate: float | None
    head_rate: float | None
    epochs: int
    tokens: int
    seed: int
    out: Path

    def check(self) -> None:
        """Raise ValueError or TypeError for options that do not fit, before anything is read."""
        from mmha import checks

        if self.encoder is None:
            for name, given in (("--from-scratch", self.from_scratch), ("--head-rate", self.head_rate is not None)):
                if given:
                    raise ValueError(f"{name}: expected it with --encoder, got it alone")
        elif self.size is not None:
            raise ValueError("--size: expected it without --encoder, got both")
        checks.one_of("size", self.size or "base", ("base", "small"))
        for name, rate in (("rate", self.rate), ("head_rate", self.head_rate)):
            if rate is not None:
                checks.require(checks.number(name, rate) > 0, name, "a learning rate > 0", str(rate))
        fits = 0 < checks.number("share", self.share) <= 1
        checks.require(fits, "share", "a number above 0 and at most 1", self.share)

    def rates(self) -> tuple[float, float]:
        """The highest rate of the model and that of the layer on an encoder."""
        rate = self.rate or (RATE if self.encoder is None else ENCODER_RATE)
        return rate, self.head_rate or (rate if self.encoder is None else HEAD_FACTOR * rate)

    def run(self, parts: list[list[Sentence]], data: str, resume: bool) -> dict[str, Any]:
        """Train to the end and write `tagger.json` with the weights of the best epoch; the test set is read once."""
        from mmha.train import tagging
        from mmha.train.loop import Run, Settings

        train, dev = (tagging.share(part, self.share, self.seed) for part in parts[:2])
        rate, head_rate = self.rates()
        about = {"data": data, "digest": digest([train, dev])} | self.about()
        tags = tags_of(train)
        model = self.new(train, tags)
        self.out.mkdir(parents=True, exist_ok=True)
        settings = Settings(epochs=self.epochs, rate=rate, seed=self.seed)
        run = Run(model, settings, self.out, about, {"head.": head_rate / rate})
        if resume:
            run.resume()
        batches = tagging.Shuffled(train, model.encode, tags, self.tokens, self.seed)
        with bar(run, "epoch", "dev", lambda score, digits: f"{score:.{digits}%}") as show:
            run.fit(batches, tagging.loss, lambda m: tagging.accuracy(m, dev).value, show)
        model.load_state_dict(run.best)
        result = about | {
            "parameters": sum(p.numel() for p in model.parameters()),
            "train_words": sum(map(len, train)),
            "steps": run.progress.step,
            "best_epoch": run.progress.best_epoch,
            "dev_accuracy": run.progress.best,
            "seconds": round(run.progress.seconds),
        }
        return self.finish(model, result, parts[2])

    def about(self) -> dict[str, Any]:
        """What two runs must have in common for one to go on with the other, beside their data."""
        rate, head_rate = self.rates()
        own: dict[str, Any] = {"epochs": self.epochs, "rate": rate, "tokens": self.tokens, "seed": self.seed}
        if self.share < 1:
            own["share"] = self.share
        if self.encoder is None:
            return {"size": self.size or "base"} | own
        return {"encoder": self.encoder, "from_scratch": self.from_scratch, "head_rate": head_rate} | own

    def new(self, train: list[Sentence], tags: Sequence[str]) -> Any:
        """The tagger before training: of words and letters, or a new layer on the encoder."""
        import torch

        if self.encoder is None:
            from mmha.models import tagger as model

            lexicon = model.Lexicon.count([s.words for s in train], tags)
            torch.manual_seed(self.seed)
            return model.Tagger(model.BUILDERS[self.size or "base"](lexicon), lexicon)
        from mmha.models.bert import Bert
        from mmha.models.bert.tagging import Tagger, bare

        pretrained, tokenizer = load(self.encoder, "--encoder")
        encoder = bare(pretrained)
        torch.manual_seed(self.seed)
        if self.from_scratch:
            encoder = Bert(encoder.config)
        return Tagger(encoder, tokenizer, tags)

    def finish(self, model: Any, result: dict[str, Any], test: list[Sentence]) -> dict[str, Any]:
        """Write the tagger and test it, once: what is tested is what is shipped, the weights as written, rounded."""
        from mmha.models import tagger
        from mmha.models.bert import tagging as on_bert
        from mmha.train import tagging

        models: Any = tagger if self.encoder is None else on_bert
        models.save(model, self.out / FILE, result, TENSORS)
        if test:
            result["test_accuracy"] = tagging.accuracy(models.load(self.out / FILE), test).value
            models.save(model, self.out / FILE, result, TENSORS)
        return result | {"model": str(self.out / FILE)}


def read(train: Path | None, dev: Path | None, test: Path | None) -> list[list[Sentence]]:
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


def digest(parts: list[list[Sentence]]) -> str:
    """Of what is trained and chosen on: a stopped run goes on with the same words or not at all."""
    import hashlib

    found = hashlib.sha256()
    for part in parts:
        found.update(repr([(s.words, s.tags) for s in part]).encode())
    return found.hexdigest()[:16]


def tags_of(train: list[Sentence]) -> Sequence[str]:
    """All universal tags, even unseen ones, so that taggers of different treebanks compare; other sets as they are."""
    from mmha.data.sentence import UPOS

    found = sorted({tag for s in train for tag in s.tags or ()})
    return UPOS if set(found) <= set(UPOS) else found


def _print(result: dict[str, Any]) -> None:
    print(f"{result['model']}: {result['parameters']:,} parameters, {result['seconds']} s of training")
    print(f"dev accuracy  {result['dev_accuracy']:.2%} (epoch {result['best_epoch']})")
    if "test_accuracy" in result:
        print(f"test accuracy {result['test_accuracy']:.2%}")
