"""Generation with a cache against the same thing done slowly, and sample.py's ways of asking for it."""
import io
import itertools
import types

import numpy as np
import pytest
import torch
from conftest import run, run_process
from hypothesis import given, settings
from hypothesis import strategies as st

import model as library
from model import GPT, GPTConfig, UserError, pick

V = 37


def small(block_size=12, seed=0, **more):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(block_size, V, n_layer=2, n_head=2, n_embd=16, **more)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if 'wng' in name:
                p.normal_(0, 0.1) # begins with nothing
            p.mul_(8 if p.dim() == 2 else 1) # so that tokens depend on what came before them
        model.lm_head.weight = torch.nn.Parameter(torch.randn(V, 16)) # and do not repeat themselves
    return model


@torch.no_grad()
def slowly(model, prompt, draws, stride=1, n_vocab=None, **choice):
    """The new ids of one row: the whole window computed for each of them."""
    ids, first = list(prompt), max(0, len(prompt) - model.config.block_size)
    for draw in draws:
        if len(ids) - first > model.config.block_size:
            first += stride
        logits = model(torch.tensor([ids[first:]]))[0][:, -1, :n_vocab]
        ids.append(int(pick(logits, draw[None], **choice)))
    return ids[len(prompt):]


def streamed(model, prompts, n, **more):
    return torch.stack(list(model.stream(prompts, n, **more)), 1).tolist()


CHOICES = [dict(temperature=0.0), dict(temperature=0.9), dict(temperature=1.3, top_k=5), dict(temperature=1.0, top_p=0.7),
           dict(temperature=0.8, top_k=20, top_p=0.9)]


@pytest.mark.parametrize('choice', CHOICES, ids=str)
@pytest.mark.parametrize('stride', [1, 5, 12])
@pytest.mark.parametrize('length', [1, 7, 30])
def test_with_the_cache_as_without(length, stride, choice, **more):
    """In the window and beyond it, for one row and for several."""
    model = small(**more)
    prompts = torch.randint(V, (3, length), generator=torch.Generator().manual_seed(1)).tolist()
    draws = torch.rand(3, 30, generator=torch.Generator().manual_seed(2))
    expected = [slowly(model, p, d, stride, **choice) for p, d in zip(prompts, draws, strict=True)]
    assert streamed(model, prompts, 30, context_stride=stride, draws=draws, **choice) == expected
    assert streamed(model, prompts[1:2], 30, context_stride=stride, draws=draws[1:2], **choice) == expected[1:2]
    assert len(set(sum(expected, []))) > 3 # not all the same


@pytest.mark.parametrize('stride', [1, 5])
@pytest.mark.parametrize('more', [dict(rotary=True), dict(rotary=True, ngrams=100)], ids=str)
def test_what_nanogpt_has_not_is_cached_as_well(stride, more):
    for length in (1, 7, 30):
        test_with_the_cache_as_without(length, stride, CHOICES[-1], **more)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 8), st.integers(0, 1000), st.booleans())
def test_each_row_gets_what_it_would_get_alone(lengths, stride, seed, more):
    model, rng = small(block_size=8, rotary=more, ngrams=77 * more), np.random.default_rng(seed)
    prompts = [rng.integers(V, size=n).tolist() for n in lengths]
    draws = torch.from_numpy(rng.random((len(lengths), 15), np.float32))
    together = streamed(model, prompts, 15, temperature=0.9, top_k=10, context_stride=stride, draws=draws)
    assert together == [slowly(model, p, d, stride, temperature=0.9, top_k=10) for p, d in zip(prompts, draws, strict=True)]


def test_a_prompt_asked_for_often_is_computed_once(monkeypatch):
    model, rows = small(), []
    trunk = GPT.trunk
    monkeypatch.setattr(GPT, 'trunk', lambda self, idx, *past: rows.append(len(idx)) or trunk(self, idx, *past))
    draws = torch.rand(4, 3)
    together = streamed(model, [[1, 2, 3]] * 4, 3, draws=draws)
    assert rows == [1, 4, 4]
    assert together == [slowly(model, [1, 2, 3], d, temperature=1.0) for d in draws]


def test_generate_returns_the_prompt_and_what_follows():
    model = small()
    idx = torch.randint(V, (3, 4))
    torch.manual_seed(5)
    first = model.generate(idx, 20, temperature=0.8, top_k=10)
    assert len(model.generate(idx[:1].expand(5, -1), 20)[:, 4:].unique(dim=0)) == 5 # each row has draws of its own
    torch.manual_seed(5)
    assert torch.equal(first, model.generate(idx, 20, 0.8, 10)) and first.shape == (3, 24) and torch.equal(first[:, :4], idx)
    assert not torch.equal(first, model.generate(idx, 20, 0.8, 10))
    (first.float() * torch.ones(1, requires_grad=True)).sum().backward() # an ordinary tensor


def test_generate_ends_when_all_rows_have_stopped():
    model = small()
    idx = torch.tensor([[1], [2], [3]])
    free = model.generate(idx, 60, temperature=0)
    stop = [int(i) for i in set(free[0, 3:].tolist()) & set(free[1, 3:].tolist()) & set(free[2, 3:].tolist())][:1] or free[:, 5].tolist()
    ended = model.generate(idx, 60, temperature=0, stop=stop)
    at = [next(t for t in range(1, 61) if free[r, t] in stop) for r in range(3)]
    assert ended.size(1) == max(at) + 1
    for r, t in enumerate(at): # a row that stopped repeats what it stopped at
        assert torch.equal(ended[r, :t + 1], free[r, :t + 1]) and set(ended[r, t:].tolist()) == {int(free[r, t])}


@pytest.mark.parametrize('prompts, stride', [([[]], 1), ([[1], []], 1), ([[1]], 0), ([[1]], 13)])
def test_what_cannot_be_continued_is_a_sentence(prompts, stride):
    with pytest.raises(UserError, match='a prompt needs a token, and context_stride'):
        streamed(small(), prompts, 3, context_stride=stride)


def test_the_padding_of_the_vocabulary_is_never_drawn():
    model = small()
    with torch.no_grad():
        model.lm_head.weight[30:] *= 10 # likeliest by far
    assert max(streamed(model, [[1]], 50, temperature=1.5)[0]) >= 30
    for choice in CHOICES:
        assert max(streamed(model, [[1], [2, 3]], 50, n_vocab=30, **choice)[0]) < 30


def test_pick_draws_from_the_law_it_says():
    logits = torch.tensor([[1.0, 3.0, 0.0, 2.0]])
    assert [pick(logits, torch.tensor([0.99]), temperature).tolist() for temperature in (0, 1e-40)] == [[1], [1]]
    assert pick(torch.zeros(1, 2), torch.tensor([0.99]), 1.0, top_p=0.5).tolist() == [0] # which the first one reaches
    draws = (torch.arange(20000) + 0.5) / 20000
    for temperature, top_k, top_p in [(1.0, None, None), (0.5, 0, 0.0), (2.0, 3, None), (1.0, 1, None), (1.0, 99, 1.0), (1.0, None, 0.6),
                                      (1.0, None, 0.7), (2.0, None, 0.9), (1.0, 2, 0.9), (1.0, 3, 0.7), (1.0, None, 1e-9)]:
        p = (logits[0] / temperature).softmax(0)
        order = p.argsort(descending=True).tolist()
        kept, total = [], 0.0
        mass = sum(float(p[i]) for i in order[:top_k or 4])
        for i in order[:top_k or 4]: # the likeliest until they come to top_p
            if not top_p or total < top_p * mass:
                kept.append(i)
                total += float(p[i])
        expected = torch.zeros(4)
        expected[kept] = p[kept] / p[kept].sum()
        drawn = pick(logits.expand(20000, 4), draws, temperature, top_k, top_p).bincount(minlength=4) / 20000
        np.testing.assert_allclose(drawn, expected, atol=2e-4, err_msg=f'{temperature, top_k, top_p}')


@pytest.mark.parametrize('edge', [0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
def test_pick_never_draws_what_has_no_probability(edge):
    logits = torch.full((1, 50000), float('-inf'))
    logits[0, 100:40000] = torch.linspace(-3, 3, 39900)
    for more in ({}, dict(top_k=300), dict(top_p=0.95)):
        assert 100 <= int(pick(logits, torch.tensor([edge]), 1.0, **more)) < 40000


@pytest.mark.parametrize('more', [{}, dict(rotary=True, ngrams=100)], ids=str)
def test_half_precision_generates_the_same_at_first(monkeypatch, more):
    expected, kinds = streamed(small(**more), [[1, 2, 3]], 3, temperature=0), set()
    monkeypatch.setattr(library, 'pick', lambda logits, *choice: kinds.add(logits.dtype) or pick(logits, *choice))
    for dtype in (torch.bfloat16, torch.float16):
        assert streamed(small(**more).to(dtype), [[1, 2, 3]], 3, temperature=0) == expected
    assert kinds == {torch.float32} # in which probabilities add up to one


@pytest.mark.slow
def test_the_compiled_step_is_one_graph_and_draws_the_same():
    import torch._dynamo
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, draws = small(), torch.rand(2, 20)
    prompts = [[1, 2, 3], [4, 5]] # their rows are at different places, and one reaches the window's end
    compiled = streamed(model, prompts, 20, temperature=0.8, top_k=9, draws=draws, context_stride=4, compiled=True)
    assert compiled == streamed(model, prompts, 20, temperature=0.8, top_k=9, draws=draws, context_stride=4)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1
    streamed(model, [[1], [2, 3, 4, 5]], 7, temperature=0.8, top_k=9, compiled=True) # nor do other lengths make another
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1


# ---- sample.py -----------------------------------------------------------------------------------------------------------
def texts(result):
    assert result.code == 0, result.err
    return result.out.split('of parameters: 0.03M\n')[1].split('\n---------------\n')[:-1]


ARGS = dict(max_new_tokens=40, device='cpu')


def test_prompts_from_lines_each_get_what_they_get_alone(trained, tmp_path):
    (tmp_path / 'prompts.txt').write_text('ab\nthe cat sat on the mat\nx\n', encoding='utf-8')
    together = texts(run('sample.py', out_dir=trained, start=f"LINES:{tmp_path / 'prompts.txt'}", num_samples=2, **ARGS))
    alone = [texts(run('sample.py', out_dir=trained, start=s, num_samples=2, **ARGS)) for s in ('ab', 'the cat sat on the mat', 'x')]
    assert together == sum(alone, []) and len(set(together)) == 6


def test_samples_do_not_depend_on_how_many_fit_into_memory(trained, monkeypatch):
    from_checkpoint = library.GPT.from_checkpoint

    class Huge(int):
        def __rmul__(self, bytes_each):
            return next(each)

    def huge(*args):
        model = from_checkpoint(*args)
        model.config.vocab_size = Huge(model.config.vocab_size) # as far as memory is concerned
        return model
    whole = texts(run('sample.py', out_dir=trained, num_samples=5, **ARGS))
    batches = []
    stream = library.GPT.stream
    monkeypatch.setattr(library.GPT, 'stream', lambda self, prompts, *a: batches.append(len(prompts)) or stream(self, prompts, *a))
    monkeypatch.setattr(library.GPT, 'from_checkpoint', huge)
    each = iter((1.5e9, 9e9))
    for sizes in [2, 2, 1], [1] * 5: # at least one
        batches.clear()
        result = run('sample.py', out_dir=trained, num_samples=5, **ARGS)
        assert texts(result) == whole and batches == sizes and result.err.startswith('200 tokens in ')


def test_one_sample_is_shown_as_it_comes_and_is_the_first_of_many(trained):
    one = run('sample.py', out_dir=trained, num_samples=1, **ARGS)
    assert texts(one) == texts(run('sample.py', out_dir=trained, num_samples=3, **ARGS))[:1]
    assert one.err.startswith('40 tokens in ') and one.err.endswith(' tokens/s\n')


@pytest.mark.parametrize('num_samples', [1, 3])
def test_a_text_ends_a_sample(trained, num_samples):
    free = texts(run('sample.py', out_dir=trained, start='ab', num_samples=num_samples, **ARGS))
    stop = free[0][12:15]
    ended = texts(run('sample.py', f'--stop={stop}', out_dir=trained, start='ab', num_samples=num_samples, **ARGS))
    assert ended == ['ab' + text[2:].split(stop)[0] for text in free] and len(ended[0]) <= 12


class Pieces(io.StringIO):
    """A stream that remembers what was written at once."""
    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, s):
        self.pieces.append(s)
        return super().write(s)


def gpt2_checkpoint(folder):
    """A model of GPT-2's vocabulary that says nothing worth hearing."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(16, 50304, n_layer=1, n_head=1, n_embd=8))
    torch.save(dict(model=model.state_dict(), model_args=vars(model.config), codec=None), folder / 'ckpt.pt')
    return folder


@pytest.fixture
def bpe():
    import os
    tiktoken = pytest.importorskip('tiktoken')
    if not os.path.isdir(os.environ.get('TIKTOKEN_CACHE_DIR', '')):
        pytest.skip("GPT-2's tables are not here: set TIKTOKEN_CACHE_DIR to a folder that has them")
    return tiktoken.get_encoding('gpt2')


@pytest.mark.parametrize('rest', ['', '<|endoftext|> more', ' STOP more'])
def test_bpe_is_shown_in_whole_characters_until_something_ends_it(tmp_path, bpe, monkeypatch, rest):
    text = 'naïve 日本語 🎉👩‍👩‍👧 ok S'
    ids = bpe.encode(text + rest, allowed_special='all')
    assert any('\ufffd' in bpe.decode([i]) for i in ids) # some are parts of a character
    monkeypatch.setattr(library.GPT, 'stream', lambda self, prompts, *a: (torch.tensor([i] * len(prompts)) for i in ids))
    monkeypatch.setattr(io, 'StringIO', Pieces)
    result = run('sample.py', out_dir=gpt2_checkpoint(tmp_path), start='Once', stop=' STOP', num_samples=1, max_new_tokens=len(ids), device='cpu')
    assert result.code == 0, result.err
    assert result.out.endswith(f'Once{text}\n---------------\n') and '\ufffd' not in result.out


def test_the_first_of_several_is_shown_as_it_comes(trained, monkeypatch):
    import builtins
    shown, said = [], print
    monkeypatch.setattr(builtins, 'print', lambda *a, **k: (shown.append((a, k.get('end'))), said(*a, **k)))
    first, *others = texts(run('sample.py', out_dir=trained, start='ab', num_samples=3, max_new_tokens=40, device='cpu'))
    pieces = [a[0] for a, end in shown if end == '']
    assert len(pieces) == 3 and all(pieces) and 'ab' + ''.join(pieces)[2:] == first and len(others) == 2


def test_a_real_model_that_ends_its_text(tmp_path, bpe):
    """<|endoftext|> made the likeliest token everywhere."""
    checkpoint = torch.load(gpt2_checkpoint(tmp_path) / 'ckpt.pt', weights_only=False)
    direction = torch.tensor([1., -1., 1., -1., 1., -1., 1., -1.])
    checkpoint['model']['transformer.wpe.weight'][:] = direction
    for key in ('lm_head.weight', 'transformer.wte.weight'):
        checkpoint['model'][key][50256] = direction
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    for n in (1, 2):
        result = run('sample.py', out_dir=tmp_path, start='Hello', num_samples=n, temperature=0, max_new_tokens=100, device='cpu')
        assert result.out.count('Hello\n---------------\n') == n and 'endoftext' not in result.out
        assert int(result.err.split()[0]) <= 16 * n # and it did not go on


@pytest.mark.slow
def test_no_noise_when_a_sample_ends_early(trained):
    result = run_process('sample.py', out_dir=trained, num_samples=1, stop='a', **ARGS)
    assert result.code == 0 and len(result.err.splitlines()) == 1 and result.err.rstrip().endswith('tokens/s')


@pytest.mark.slow
def test_compile_compiles_the_step(trained):
    import torch._dynamo
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear() # of the tests before
    plain, compiled = (texts(run('sample.py', out_dir=trained, num_samples=2, compile=c, **ARGS)) for c in (False, True))
    assert plain == compiled
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] >= 1


def test_bench_times_generation(tmp_path, monkeypatch):
    """Each look at the clock takes a second here, and copying or recomputing a thousand."""
    asked, stream = [], GPT.stream
    monkeypatch.setattr('time.perf_counter', itertools.count().__next__)
    monkeypatch.setattr('torch.utils.benchmark.Timer.blocked_autorange', lambda *args, **more: types.SimpleNamespace(times=[2000, 1000]))
    monkeypatch.setattr(GPT, 'stream', lambda self, prompts, n, **more: asked.append((len(prompts), len(prompts[0]), n)) or stream(self, prompts, n, **more))
    result = run('bench.py', cwd=tmp_path, mode='generate', n_layer=2, n_head=2, n_embd=32, block_size=32, batch_size=3, device='cpu', dtype='bfloat16', real_data=False)
    out = result.out
    assert asked == [(1, 16, 6), (1, 16, 16), (3, 16, 6), (3, 16, 16)] and result.space['model'].lm_head.weight.dtype == torch.bfloat16
    model = result.space['model']
    for rows, line in zip((1, 3), (line for line in out.splitlines() if 'at once' in line), strict=True): # 16 tokens, of which 11 are timed at last
        read = 2 * (model.get_num_params() + rows * 2 * 2 * 32 * 24) # bytes a step: all weights, and keys and values of 24 positions in 2 layers
        share = 100 * read * 11 / (2 * 4 * 2 ** 26 / 1000)
        assert line == (f'{rows} at once: 1000.0ms to the first token, then 90.91ms a step, {rows * 11:.1f} tokens/s, {share:.0f}% of 0 GB/s; '
                        f'recomputing 0.0 tokens/s, ratio {rows * 11000:.1f}')


@pytest.mark.slow
@pytest.mark.parametrize('block_size', [2, 3])
def test_bench_of_the_shortest_contexts(tmp_path, block_size):
    out = run('bench.py', cwd=tmp_path, mode='generate', n_layer=1, n_head=1, n_embd=8, block_size=block_size, batch_size=2, device='cpu', real_data=False)
    assert out.code == 0 and out.out.count('ms a step') == 2, out.err


def test_bench_has_two_modes(tmp_path):
    run('bench.py', cwd=tmp_path, mode='sleep', device='cpu').refused("'sleep'", 'train, generate')
