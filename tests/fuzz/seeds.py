"""Valid files of every kind that mmha reads, small, each in a folder of its own."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONLLU = """# text = I saw a saw.
1\tI\tI\tPRON\t_\t_\t2\tnsubj\t_\t_
2-3\tsawa\t_\t_\t_\t_\t_\t_\t_\t_
2\tsaw\tsee\tVERB\t_\t_\t0\troot\t_\t_
3\ta\ta\tDET\t_\t_\t4\tdet\t_\t_
3.1\tx\tx\tX\t_\t_\t_\t_\t_\t_
4\tsaw\tsaw\tNOUN\t_\t_\t2\tobj\t_\t_

1\tYes\tyes\tINTJ\t_\t_\t0\troot\t_\t_
"""
TEXT = "“I saw a saw,” said Mr. Hill.\n\nACT I. SCENE 1\n\nHe did! 3.5% café — yes.\n\n\nII\n\nAnother one.\n"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "saw", "a"]


def text(folder: Path, name: str = "text.txt", content: str = TEXT) -> Path:
    """Any text."""
    (folder / name).write_text(content, "utf-8")
    return folder / name


def bert(folder: Path) -> Path:
    """A checkpoint of a small BERT."""
    from mmha.models import bert as kind

    model = kind.Bert(_bert_sizes())
    kind.save(model, kind.Tokenizer.of(PIECES), folder / "bert.json", {})
    return folder / "bert.json"


def _bert_sizes() -> Any:
    from mmha.models.bert import Config

    return Config(len(PIECES), width=4, layers=1, heads=2, hidden=3, positions=7)


def bert_folder(folder: Path) -> Path:
    """A Hugging Face folder of the same, and what sentence-transformers adds."""
    from mmha.models import bert as kind
    from mmha.models.bert.huggingface import save_huggingface

    save_huggingface(kind.Bert(_bert_sizes()), kind.Tokenizer.of(PIECES), folder)
    (folder / "modules.json").write_text('[{"idx": 0, "path": "1_P", "type": "x.models.Pooling"}]')
    (folder / "1_P").mkdir()
    (folder / "1_P" / "config.json").write_text('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": false}')
    return folder / "config.json"


def bert_pickled(folder: Path) -> Path:
    """The same with vocab.txt and the weights as torch.save writes them."""
    from safetensors.torch import load_file

    bert_folder(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder / "config.json"


def bert_tagger(folder: Path) -> Path:
    """A tagger on that BERT."""
    from mmha.models import bert as kind
    from mmha.models.bert import tagging

    model = tagging.Tagger(tagging.bare(kind.Bert(_bert_sizes())), kind.Tokenizer.of(PIECES), ["DET", "NOUN"])
    tagging.save(model, folder / "tagger.json", {})
    return folder / "tagger.json"


def tagger(folder: Path) -> Path:
    """A checkpoint of a small tagger."""
    from mmha.models import tagger as kind
    from mmha.models.tagger.config import Config

    lexicon = kind.Lexicon.count([["a", "saw"], ["a", "log"]], ["DET", "NOUN"], least_word=1, least_piece=1)
    model = kind.Tagger(Config(*lexicon.sizes, 2, 4, 2, 3, 1, (-1,), 0.0, 0.1), lexicon)
    kind.save(model, folder / "tagger.json", {})
    return folder / "tagger.json"


def causal_lm(folder: Path) -> Path:
    """A checkpoint of a small language model."""
    from mmha.models import causal_lm as kind

    tokenizer = kind.Tokenizer([("t", "h"), ("th", "e")])
    sizes = kind.Config(tokenizer.vocab_size, width=4, layers=1, heads=2, kv_heads=1, hidden=3, context=5)
    kind.save(kind.CausalLM(sizes), tokenizer, folder / "causal_lm.json", {})
    return folder / "causal_lm.json"


def seq2seq(folder: Path) -> Path:
    """A checkpoint of a small translator, its matrices in 8 bits."""
    from mmha.models import seq2seq as kind

    tokenizer = kind.Tokenizer([("t", "h"), ("th", "e")])
    sizes = kind.Config(tokenizer.vocab_size, width=4, encoder_layers=1, decoder_layers=1, heads=2, hidden=3)
    kind.save(kind.Seq2Seq(sizes), tokenizer, folder / "seq2seq.json", {}, bits=8)
    return folder / "seq2seq.json"


def mhanet(folder: Path) -> Path:
    """A checkpoint of a small speech enhancer."""
    from mmha.models import mhanet as kind

    kind.save(kind.MHANet(kind.Config(width=4, layers=1, heads=2, hidden=3, window=5)), folder / "mhanet.json", {})
    return folder / "mhanet.json"


def mamsm(folder: Path) -> Path:
    """A checkpoint of a small MAMSM."""
    from mmha.models import mamsm as kind

    scale = kind.Scale(-1.0, 1.0, step=0.25)
    model = kind.MAMSM(kind.Config(scale.vocabulary, width=4, layers=1, heads=2, head_dim=2, hidden=3, positions=7))
    kind.save(model, scale, folder / "mamsm.json", {})
    return folder / "mamsm.json"


def sound(ending: str) -> Callable[[Path], Path]:
    """A tenth of a second in the format of an ending."""

    def make(folder: Path) -> Path:
        path = folder / f"sound{ending}"
        samples = (0.3 * np.sin(np.arange(1600) / 7.0)).astype(np.float32)
        if ending in (".m4a", ".mka"):
            _container(path, samples)
            return path
        from mmha.data import sound as files

        with files.Writer(path, files.Info(16000, 1, 1600, "WAV", "PCM_16")) as writer:
            writer.write(samples[:, None])
        return path

    return make


def _container(path: Path, samples: Any) -> None:
    import av

    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))


def nifti(ending: str, shape: tuple[int, ...] = (3, 2, 5, 7)) -> Callable[[Path], Path]:
    """A small run of volumes, or with three dimensions a mask."""

    def make(folder: Path) -> Path:
        import nibabel

        numbers = np.random.default_rng(1).normal(100, 5, shape)
        if len(shape) == 3:
            numbers[:] = 1
        image = nibabel.Nifti1Image(numbers.astype(np.int16), np.eye(4))
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 2.0
        path = folder / f"{'run' if len(shape) == 4 else 'mask'}{ending}"
        nibabel.save(image, path)
        return path

    return make


def masked_run(folder: Path) -> Path:
    """A mask beside its run."""
    nifti(".nii")(folder)
    return nifti(".nii", (3, 2, 5))(folder)


def archive(ending: str) -> Callable[[Path], Path]:
    """An archive of two files."""

    def make(folder: Path) -> Path:
        path, files = folder / f"archive{ending}", {"in/a.txt": b"hello " * 50, "in/b/c.txt": b"other"}
        if ending == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, data in files.items():
                    packed.writestr(name, data)
            return path
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        path.write_bytes(gzip.compress(stream.getvalue(), mtime=0))
        return path

    return make
