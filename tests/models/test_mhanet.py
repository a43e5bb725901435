"""MHANet: its sizes, what a frame may depend on, and its stream against the whole."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mmha.models import mhanet
from mmha.models.mhanet import frames

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = mhanet.Config(width=22, layers=2, heads=2, hidden=13, window=5)


def model(config: mhanet.Config = TINY) -> mhanet.MHANet:
    torch.manual_seed(3)
    made = mhanet.MHANet(config)
    made.mean.copy_(torch.linspace(4, -7, 257))
    made.deviation.copy_(torch.linspace(23, 27, 257))
    return made.eval()


def noise(samples: int, seed: int = 1) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def by_torch(net: mhanet.MHANet, magnitudes: Tensor) -> Tensor:
    """The published formula with torch's functions and a dense mask."""
    t = torch.arange(magnitudes.shape[1])
    window = net.config.window or len(t)
    visible = (t[:, None] >= t) & (t[:, None] - t < window)
    x = F.relu(F.layer_norm(magnitudes @ net.project_in.weight.T, (net.config.width,), *norm(net.norm)))
    for block in net.blocks:
        assert isinstance(block, nn.Module)
        w = block.attention.project_in.weight
        q, k, v = (x @ part.T for part in w.chunk(3))
        q, k, v = (y.unflatten(-1, (net.config.heads, -1)).transpose(1, 2) for y in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, visible).transpose(1, 2).flatten(2)
        x = F.layer_norm(x + seen @ block.attention.project_out.weight.T, (22,), *norm(block.norm_attention))
        x = F.layer_norm(x + block.down(F.relu(block.up(x))), (22,), *norm(block.norm_feed_forward))
    return net.project_out(x)


def norm(layer: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return layer.weight, layer.bias, 1e-6


@pytest.mark.parametrize("config", [mhanet.published(), mhanet.small(), TINY])
def test_the_number_of_weights_is_the_published_one(config: mhanet.Config) -> None:
    held = sum(p.numel() for p in mhanet.MHANet(config).parameters())
    assert held == config.parameters
    assert mhanet.published().parameters == 4_076_033


@torch.no_grad()
def test_the_network_is_the_published_formula() -> None:
    net = model()
    magnitudes = noise(2 * 19 * 257).abs().view(2, 19, 257)
    assert torch.allclose(net(magnitudes), by_torch(net, magnitudes), atol=1e-5)


@torch.no_grad()
def test_no_frame_depends_on_the_future_or_on_what_has_left_its_window() -> None:
    net = model()
    magnitudes = noise(19 * 257).abs().view(1, 19, 257)
    whole = net(magnitudes)
    changed = magnitudes.clone()
    changed[:, 11:] = torch.nan
    assert torch.equal(net(changed)[:, :11], whole[:, :11])
    # Two layers of a window of 5 look back on 8 frames.
    changed = magnitudes.clone()
    changed[:, :4] = torch.nan
    assert torch.equal(net(changed)[:, 12:], whole[:, 12:])
    assert not net(changed)[:, 11].isfinite().all()


@pytest.mark.parametrize("samples", [0, 1, 255, 256, 257, 511, 512, 5003])
def test_a_stream_in_any_pieces_gives_what_the_whole_gives(samples: int) -> None:
    enhancer = mhanet.Enhancer(model())
    x = noise(samples)
    whole = offline(enhancer, x)
    assert torch.allclose(enhancer.enhance(x), whole, atol=1e-5)
    sizes = torch.Generator().manual_seed(5)
    stream, made, at = enhancer.stream(), [], 0
    while at < samples:
        step = int(torch.randint(1, 700, (1,), generator=sizes))
        made.append(stream.push(x[at : at + step]))
        at += step
    out = torch.cat([*made, stream.finish()])
    assert len(out) >= (samples + 256 if samples else 0)
    assert torch.allclose(out[256:][:samples], whole, atol=1e-5)


@torch.no_grad()
def offline(enhancer: mhanet.Enhancer, x: Tensor) -> Tensor:
    """All frames at once through the network, without a cache."""
    seen = frames.spectra(x)
    if not len(x):
        return x
    ratio = enhancer.model.statistics.ratio(torch.sigmoid(enhancer.model(seen.abs()[None])[0]))
    return frames.sound(seen * shaped(mhanet.gain(enhancer.gain, ratio.numpy()), 200.0, np.inf), len(x))


def shaped(gains: NDArray[np.float64], release: float, limit: float) -> Tensor:
    """The factors by their definition: a gain of the past counts as much as it may have fallen since."""
    frame = np.arange(len(gains))
    past = frame[:, None] - frame
    fallen = 10 ** (-release * 0.016 * np.maximum(past, 0) / 20) * (past >= 0)
    left = 10 ** (-limit / 20)
    return torch.from_numpy(left + (1 - left) * (fallen[..., None] * gains).max(1, initial=0)).float()


@pytest.mark.parametrize("rate", [16000, 11025, 48000])
@pytest.mark.parametrize("samples", [0, 1, 397, 5003])
def test_a_recording_comes_back_as_long_as_it_is_channel_by_channel(rate: int, samples: int) -> None:
    enhancer = mhanet.Enhancer(model())
    x = noise(3 * samples).view(3, samples)
    whole = enhancer.enhance(x, rate)
    assert whole.shape == (3, samples)
    for row, alone in zip(whole, x, strict=True):
        assert torch.allclose(row, enhancer.enhance(alone, rate), atol=1e-5)
    recording = mhanet.Recording(enhancer, rate, 3)
    pieces = [recording.push(piece) for piece in x.split(311, 1)]
    assert torch.allclose(torch.cat([*pieces, recording.finish()], 1), whole, atol=1e-5)


def test_a_recording_of_another_rate_is_aligned() -> None:
    net = model()
    nn.init.zeros_(net.project_out.weight)
    nn.init.constant_(net.project_out.bias, 30.0)  # all is speech: what goes in comes out
    t = torch.arange(9000) / 22050
    x = 0.3 * torch.sin(2 * torch.pi * 437 * t)
    found = mhanet.Enhancer(net).enhance(x, 22050)
    assert (found - x)[800:-800].abs().max() < 2e-3


def test_a_sample_is_out_512_samples_after_it_came_in_and_not_earlier() -> None:
    enhancer = mhanet.Enhancer(model())
    quiet, heard = noise(4096), noise(4096)
    heard[2048] += 1.0  # an impulse
    one, other = enhancer.stream(), enhancer.stream()
    out = [torch.cat([s.push(x[at : at + 1]) for at in range(len(x))]) for s, x in ((one, quiet), (other, heard))]
    first = int((out[0] != out[1]).nonzero()[0])
    # The n-th sample out belongs to sample n - 256; the impulse changes its own frames and nothing before them.
    assert 2048 + 256 - 512 < first <= 2048 + 256
    # What is out once n samples are in: everything but the last 512 samples, in steps of 256.
    stream = enhancer.stream()
    done = [len(stream.push(quiet[:1])) for _ in range(1024)]
    assert [n + 1 for n, size in enumerate(done) if size] == [256, 512, 768, 1024]
    assert mhanet.LATENCY == 512


def test_what_a_stream_has_given_depends_on_nothing_that_comes_later() -> None:
    """Whatever the future is, bit by bit: what is out after n samples comes from these n."""
    enhancer = mhanet.Enhancer(model())
    past = noise(2203)
    given = []
    for future in (noise(1500, 2), 50 * noise(1500, 3), torch.zeros(1500)):
        stream = enhancer.stream()
        given.append(stream.push(past))
        with pytest.raises(ValueError, match="finite numbers"):
            stream.push(torch.full((700,), torch.nan))  # is refused and leaves no trace
        given[-1] = torch.cat([given[-1], stream.push(future)])
    # Of the 2203 samples 2048 have left; sample n out is sample n - 256 of the sound.
    assert all(torch.equal(one[:2048], given[0][:2048]) for one in given)
    assert not torch.equal(given[1][2048:], given[0][2048:])


def test_the_memory_of_a_stream_does_not_grow() -> None:
    stream = mhanet.Enhancer(model()).stream()
    held = []
    for _ in range(4):
        for _ in range(40):
            stream.push(noise(256))
        held.append(sum(storages(stream).values()))
    assert held[1] == held[2] == held[3] > 1000


def storages(root: object) -> dict[int, int]:
    """Bytes of all memory of tensors that can be reached from an object, by address."""
    found, seen, todo = {}, set(), [root]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, (type, type(gc), type(storages))):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor) and not one.is_mkldnn:  # arranged weights do not grow
            found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        todo += gc.get_referents(one)
    return found


def test_a_stream_sees_its_own_window_which_may_be_less_than_the_models() -> None:
    net = model()
    x = noise(5003)
    for window in (1, 2, 5):
        enhancer = mhanet.Enhancer(net, window=window)
        seen = mhanet.look(enhancer, x)
        assert torch.allclose(enhancer.enhance(x), frames.sound(frames.spectra(x) * seen.gain, len(x)), atol=1e-5)
    assert torch.allclose(enhancer.enhance(x), offline(enhancer, x), atol=1e-5)


@torch.no_grad()
def test_a_look_shows_the_weights_by_their_distance() -> None:
    enhancer = mhanet.Enhancer(model())
    x = noise(2900)
    seen = mhanet.look(enhancer, x)
    assert seen.back.shape == (2, 13, 5)
    assert torch.allclose(seen.back.sum(2), torch.ones(2, 13))
    assert torch.equal(seen.magnitudes, frames.spectra(x).abs())
    assert seen.back[:, 2, 3:].eq(0).all()
    net = enhancer.model
    first = torch.relu(net.norm(net.project_in(seen.magnitudes)))
    q, k, _ = (y[0] for y in net.blocks[0].attention.split(first[None]))
    scores = torch.einsum("htd,hsd->hts", q, k)[:, 9, 5:10] / 11**0.5
    assert torch.allclose(seen.back[0, 9], scores.softmax(1).mean(0).flip(0), atol=1e-6)
    assert [len(part) for part in mhanet.look(enhancer, noise(0))] == [0, 0, 2]


def test_padding_weighs_nothing_and_silence_does() -> None:
    logits, target = noise(2 * 7 * 257).view(2, 7, 257), torch.rand(2, 7, 257)
    lengths = torch.tensor([7, 3])
    broken = logits.clone()
    broken[1, 3:] = torch.nan
    rows = [
        F.binary_cross_entropy_with_logits(logits[b, :n], target[b, :n], reduction="sum") for b, n in ((0, 7), (1, 3))
    ]
    assert torch.allclose(mhanet.loss(broken, target, lengths), sum(rows) / (10 * 257))
    net = model()
    silent = torch.zeros(1, 7, 257)
    assert torch.equal(net(silent, lengths=[7]), net(silent))
    padded = torch.cat([noise(3 * 257).abs().view(1, 3, 257), torch.full((1, 4, 257), torch.nan)], 1)
    assert torch.allclose(net(padded, lengths=[3])[:, :3], net(padded[:, :3]), atol=1e-5)


def test_a_checkpoint_comes_back_with_its_statistics(tmp_path: Path) -> None:
    net = model()
    mhanet.save(net, tmp_path / "a.json", {"seed": 3})
    again = mhanet.load(tmp_path / "a.json")
    assert torch.equal(again.mean, net.mean)
    assert again.config == net.config
    x = noise(2000)
    assert torch.allclose(mhanet.Enhancer(again).enhance(x), mhanet.Enhancer(net).enhance(x), atol=2e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: model()(torch.zeros(1, 3, 256)), r"`magnitudes`: expected shape \(B, T, 257\), got \(1, 3, 256\)"),
        (lambda: mhanet.Enhancer(model(), "best"), "`gain`: expected .mmse-lsa., .*, got .best."),
        (lambda: mhanet.Enhancer(model(), release=0), "`release`: expected dB a second > 0, got 0"),
        (lambda: mhanet.Enhancer(model(), limit=-1.5), "`limit`: expected dB >= 0, got -1.5"),
        (lambda: mhanet.Enhancer(model(), limit=torch.nan), "`limit`: expected a finite number, got nan"),
        (lambda: mhanet.Enhancer(model(), window=6), "`window`: expected an integer >= 1 and <= 5, got 6"),
        (lambda: mhanet.Enhancer(model()).enhance(torch.tensor([torch.nan])), "`sound`: expected finite numbers"),
        (
            lambda: mhanet.Enhancer(model()).stream().push(torch.zeros(2, 3)),
            r"`sound`: expected shape \(samples,\), got \(2, 3\)",
        ),
        (
            lambda: mhanet.Enhancer(model()).stream(2).push(torch.zeros(3, 5)),
            r"`sound`: expected shape \(2, samples\), got \(3, 5\)",
        ),
        (
            lambda: mhanet.Enhancer(model()).enhance(torch.zeros(2, 3, 5)),
            r"`sound`: expected shape \(channels, samples\), got \(2, 3, 5\)",
        ),
        (lambda: mhanet.Enhancer(model()).enhance(torch.zeros(65, 1)), "`channels`: expected .* <= 64, got 65"),
        (
            lambda: mhanet.Enhancer(model()).enhance(torch.tensor([-2e9])),
            r"`sound`: expected finite numbers up to 1e9 \(full scale is 1\), got 2e\+09",
        ),
        (lambda: mhanet.Config(10, 1, 3, 7), "`heads`: expected a divisor of width = 10, got 3"),
        (lambda: mhanet.Config(10, 1, 2, 7, window=3, causal=False), "`window`: expected None without causal, got 3"),
        (
            lambda: mhanet.Enhancer(mhanet.MHANet(mhanet.Config(6, 1, 2, 7, causal=False))),
            "`model`: expected a causal one, for a stream, got one that looks ahead",
        ),
    ],
)
def test_bad_input_is_one_line(wrong, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, TypeError), match=message):
        wrong()
