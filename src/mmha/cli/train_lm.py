"""`mmha train lm`: train the language model that ships, or one on texts of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.printing import examples
from mmha.cli.training import bar, check_out, fetch, steps_of

if TYPE_CHECKING:
    from mmha.models.causal_lm import CausalLM, Tokenizer
    from mmha.train.loop import Run, Settings

EXAMPLES = examples(
    "mmha train lm --out runs/lm --minutes 60",
    "mmha train lm my-novel.txt my-letters.txt --size small --steps 2000",
)
FILE = "causal_lm.json"
ROUNDS = 20  # how often a run looks at the validation text
PROBE = 5  # steps that are timed to know how many fit into --minutes


@dataclass(frozen=True)
class Texts:
    """What is trained on, what the best round is chosen on, and what is reported on, once; the last may be empty."""

    train: list[str]
    dev: list[str]
    test: list[str]


def lm(
    files: Annotated[list[Path] | None, typer.Argument(help="UTF-8 texts to train on instead of --data.")] = None,
    data: Annotated[
        str, typer.Option(help="shakespeare: 37 works to train on, 2 to choose on, 3 to test.")
    ] = "shakespeare",
    dev: Annotated[list[Path] | None, typer.Option(help="Texts to choose on; else the last 10 % of each file.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Texts to report on, once, at the end.")] = None,
    out: Annotated[Path, typer.Option("--out", "--output", help="Folder of the run and the model.")] = Path("runs/lm"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    size: Annotated[str, typer.Option(help="base (ships with mmha) or small.")] = "base",
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens at most, found in the training text.")] = 2048,
    steps: Annotated[int | None, typer.Option(min=1, help="Rounded up to a multiple of 20.  [default: 3600]")] = None,
    minutes: Annotated[float | None, typer.Option(help="As many steps as fit, by the first ones' time.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Windows of text a step.")] = 8,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(min=0, help="Decides the start, the order and the dropout.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a causal language model on your texts, or on Shakespeare."""
    from mmha import checks
    from mmha.cli.printing import print_json

    checks.one_of("size", size, ("base", "small"))
    checks.one_of("data", data, ("shakespeare",))
    checks.require(checks.number("rate", rate) > 0, "rate", "a learning rate > 0", str(rate))
    if minutes is not None:
        checks.require(steps is None, "--minutes", "no --steps beside it", f"--steps {steps}")
        checks.require(checks.number("minutes", minutes) > 0, "minutes", "a number > 0", str(minutes))
    check_out(out, resume)
    texts = _texts(files, data, dev, test)
    if threads:
        import torch

        torch.set_num_threads(threads)
    about = {
        "data": ", ".join(map(str, files)) if files else data,
        "digest": _digest(texts.train + texts.dev),
        "size": size,
        "vocabulary": vocabulary,
        "rows": rows,
    }
    result = _Job(texts, size, vocabulary, rows, rate, seed, out, about).run(steps, minutes, resume)
    if json:
        print_json(result)
    else:
        _print(result)


def _texts(files: Sequence[Path] | None, data: str, dev: Sequence[Path] | None, test: Sequence[Path] | None) -> Texts:
    """Raises: ValueError when a file is empty, binary or not UTF-8."""
    from mmha.data import shakespeare, text

    if not files:
        if dev or test:
            raise ValueError("FILES: expected texts to train on together with --dev and --test, got none")
        parts = shakespeare.split(shakespeare.files(fetch(data)))
        return Texts(*map(shakespeare.read, parts))

    def read(paths: Sequence[Path] | None) -> list[str]:
        found = [text.read(path) for path in paths or ()]
        for path, content in zip(paths or (), found, strict=True):
            if not content.strip():
                raise ValueError(f"{path}: expected a text, got an empty file")
        return found

    train, own = read(files), read(dev)
    if not own:
        cuts = [len(content) - len(content) // 10 for content in train]
        own = [content[cut:] for content, cut in zip(train, cuts, strict=True)]
        train = [content[:cut] for content, cut in zip(train, cuts, strict=True)]
    if not any(own):
        raise ValueError("FILES: expected at least 10 letters of text, or --dev, got fewer")
    return Texts(train, own, read(test))


def _digest(texts: list[str]) -> str:
    """Of what is trained and chosen on: a stopped run goes on with the same text or not at all."""
    import hashlib

    return hashlib.sha256(repr(texts).encode()).hexdigest()[:16]


@dataclass
class _Job:
    texts: Texts
    size: str
    vocabulary: int
    rows: int
    rate: float
    seed: int
    out: Path
    about: dict[str, Any]

    def run(self, steps: int | None, minutes: float | None, resume: bool) -> dict[str, Any]:
        """Train to the end and test the best round, once; `causal_lm.json` holds the best one from the first on."""
        from mmha.train import language
        from mmha.train.loop import Run

        model, tokenizer = self.new()
        stream = language.stream([tokenizer.encode(text) for text in self.texts.train], tokenizer.end)
        if resume:
            steps = steps or steps_of(self.out, "lm")
        elif minutes is not None:
            steps = self.fitting(stream, minutes)
        settings, each = self.settings(steps or 3600)
        batches = language.Windows(stream, model.config.context, self.rows, each, self.seed)
        run = Run(model, settings, self.out, self.about | {"steps": each * settings.epochs})
        if resume:
            run.resume()
        self.out.mkdir(parents=True, exist_ok=True)

        def evaluate(averaged: Any) -> float:
            found = self.bits_per_byte(averaged, tokenizer, self.texts.dev)
            if -found > run.progress.best:
                self.save(averaged, tokenizer, self.result(run) | {"dev_bits_per_byte": found})
            return -found

        with bar(run, "round", "validation bits per byte", lambda bits, digits: f"{-bits:.{digits}f}") as show:
            run.fit(batches, language.loss, evaluate, show)
        return self.finish(run, tokenizer) | {"model": str(self.out / FILE)}

    def result(self, run: Run) -> dict[str, Any]:
        """What is written beside the weights of the round that has just ended."""
        return {
            **run.about,
            **asdict(run.settings),
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "train_bytes": _bytes(self.texts.train),
            "step": run.progress.step,
            "seconds": round(run.progress.seconds),
        }

    def finish(self, run: Run, tokenizer: Tokenizer) -> dict[str, Any]:
        """Score what is shipped, the best weights as written, with longer contexts than on the way."""
        from mmha.models import causal_lm as models

        result = self.result(run) | {"best_round": run.progress.best_epoch}
        model, tokenizer = models.load(self.out)
        result["dev_bits_per_byte"] = self.bits_per_byte(model, tokenizer, self.texts.dev, 4)
        if self.texts.test:
            result["test_bits_per_byte"] = self.bits_per_byte(model, tokenizer, self.texts.test, 4)
        self.save(model, tokenizer, result)
        return result

    def save(self, model: CausalLM, tokenizer: Tokenizer, result: dict[str, Any]) -> None:
        from mmha.models import causal_lm as models

        models.save(model, tokenizer, self.out / FILE, result, "causal_lm.safetensors")

    def new(self) -> tuple[CausalLM, Tokenizer]:
        """The untrained model, and the tokenizer of the training text."""
        import torch

        from mmha import subwords
        from mmha.models import causal_lm as models

        tokenizer = subwords.train(self.texts.train, self.vocabulary)
        torch.manual_seed(self.seed)
        return models.CausalLM(models.BUILDERS[self.size](tokenizer.vocab_size)), tokenizer

    def settings(self, steps: int) -> tuple[Settings, int]:
        """How to train, and the steps of each of its rounds (the loop's epochs)."""
        from mmha.train.loop import Settings

        rounds = min(ROUNDS, steps)
        return Settings(epochs=rounds, rate=self.rate, seed=self.seed, weight_decay=0.1), -(-steps // rounds)

    def fitting(self, stream: Any, minutes: float) -> int:
        """How many steps fit, by a few on a model that is thrown away; a resumed run keeps the number."""
        import time

        from mmha.train import language
        from mmha.train.loop import Run

        model, _ = self.new()
        run = Run(model, self.settings(PROBE + 1)[0], self.out)
        batches = language.Windows(stream, model.config.context, self.rows, PROBE + 1, self.seed)(0)
        run.step(batches[0], language.loss)
        begun = time.perf_counter()
        for batch in batches[1:]:
            run.step(batch, language.loss)
        return max(1, int(60 * minutes * PROBE / (time.perf_counter() - begun)))

    def bits_per_byte(self, model: Any, tokenizer: Tokenizer, texts: list[str], parts: int = 1) -> float:
        """Of raw UTF-8 bytes; a window moves on by 1 / `parts` of its length."""
        from mmha.train import language

        documents = [tokenizer.encode(text) for text in texts]
        context = model.config.context
        return language.bits(model, documents, tokenizer.end, context, context // parts) / _bytes(texts)


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _print(result: dict[str, Any]) -> None:
    print(f"{result['model']}: {result['parameters']:,} parameters, {result['seconds']} s of training")
    print(f"validation {result['dev_bits_per_byte']:.3f} bits per byte (round {result['best_round']})")
    if "test_bits_per_byte" in result:
        print(f"test       {result['test_bits_per_byte']:.3f} bits per byte")
