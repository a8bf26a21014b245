"""The network against slow references and against what the contract says of it."""
import math
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from data.prepare import get_codec
from model import GPT, Block, GPTConfig, Muon, UserError, load_checkpoint, peak_flops, rotations

SMALL = dict(block_size=12, vocab_size=37, n_layer=2, n_head=2, n_embd=16)


def small(seed=0, **kw):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**SMALL, **kw})).eval()
    with torch.no_grad(): # biases and norms start at 0 and 1, where a mistake could hide
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def written_out(model, idx):
    """All logits, (B, T, V), by the formulas of the paper: no fused attention, no modules."""
    c, w = model.config, dict(model.named_parameters())
    B, T = idx.shape
    hs = c.n_embd // c.n_head

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * w[name + '.weight'] + w.get(name + '.bias', 0)

    def linear(x, name):
        return x @ w[name + '.weight'].T + w.get(name + '.bias', 0)

    def turn(x, t): # one query or key (hs) at place t: complex numbers of its two halves, by angles of 10000^(-2i/hs)
        z = torch.complex(x[:hs // 2], x[hs // 2:]) * torch.polar(torch.ones(hs // 2), t * 10000 ** (-2 * torch.arange(hs // 2) / hs))
        return torch.cat((z.real, z.imag))

    x = w['transformer.wte.weight'][idx]
    if c.ngrams:
        for b in range(B):
            for t in range(T):
                key = int(idx[b, t])
                for k in (1, 2, 3): # in Python's whole numbers, which have no end
                    key = (key * 1000003 + (int(idx[b, t - k]) + 1 if t >= k else 0)) % (2 ** 31 - 1)
                    assert key * 2654435761 < 2 ** 63
                    x[b, t] += w['transformer.wng.weight'][(key * 2654435761 >> 16) % c.ngrams]
    if not c.rotary:
        x = x + w['transformer.wpe.weight'][:T]
    for i in range(c.n_layer):
        h = f'transformer.h.{i}.'
        q, k, v = linear(norm(x, h + 'ln_1'), h + 'attn.c_attn').split(c.n_embd, -1)
        y = torch.zeros_like(q)
        for b in range(B):
            for head in range(c.n_head):
                s = slice(head * hs, (head + 1) * hs)
                if c.rotary:
                    for t in range(T):
                        q[b, t, s], k[b, t, s] = turn(q[b, t, s].clone(), t), turn(k[b, t, s].clone(), t)
                for t in range(T):
                    weights = F.softmax(q[b, t, s] @ k[b, :t + 1, s].T / math.sqrt(hs), -1)
                    y[b, t, s] = weights @ v[b, :t + 1, s]
        x = x + linear(y, h + 'attn.c_proj')
        m = linear(norm(x, h + 'ln_2'), h + 'mlp.c_fc')
        m = 0.5 * m * (1 + torch.erf(m / math.sqrt(2)))
        x = x + linear(m, h + 'mlp.c_proj')
    return norm(x, 'transformer.ln_f') @ w['transformer.wte.weight'].T


@pytest.mark.parametrize('more', [dict(bias=True), dict(bias=False), dict(rotary=True), dict(ngrams=50), dict(rotary=True, ngrams=999)], ids=str)
def test_logits_and_loss_are_the_papers(more):
    model = small(**more)
    idx, targets = torch.randint(37, (2, 12)), torch.randint(37, (2, 12))
    with torch.no_grad():
        logits, loss = model(idx, targets)
        expected = written_out(model, idx)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        assert loss.item() == pytest.approx(F.cross_entropy(expected.view(-1, 37), targets.view(-1)).item(), abs=1e-6)
        last, none = model(idx)
        assert none is None and last.shape == (2, 1, 37)
        torch.testing.assert_close(last, expected[:, -1:], atol=1e-5, rtol=1e-5)


def test_a_target_of_minus_one_counts_for_nothing():
    model, idx, targets = small(), torch.randint(37, (2, 12)), torch.randint(37, (2, 12))
    targets[:, 5:] = -1
    logits, loss = model(idx, targets)
    assert loss.item() == pytest.approx(F.cross_entropy(logits[:, :5].reshape(-1, 37), targets[:, :5].reshape(-1)).item(), abs=1e-6)


def test_no_position_sees_a_later_one():
    model = small()
    x = model.transformer.wte(torch.randint(37, (1, 12))).detach().requires_grad_()
    model.transformer.wte.forward = lambda idx: x
    for t in range(12):
        logits = model(torch.zeros(1, 12, dtype=torch.long), torch.zeros(1, 12, dtype=torch.long))[0]
        grad, = torch.autograd.grad(logits[0, t].square().sum(), x)
        reach = grad[0].abs().sum(-1) > 0
        assert reach[:t + 1].all() and not reach[t + 1:].any()


def test_no_position_sees_a_later_token():
    """Nor through the table of n-grams, which is looked up by ids."""
    model, idx = small(rotary=True, ngrams=500), torch.randint(37, (1, 12))
    targets = torch.zeros(1, 12, dtype=torch.long)
    before = model(idx, targets)[0]
    for t in range(1, 12):
        other = idx.clone()
        other[0, t:] = (other[0, t:] + 1 + torch.arange(12 - t)) % 37
        after = model(other, targets)[0]
        assert torch.equal(after[0, :t], before[0, :t]) and not torch.equal(after[0, t], before[0, t])


def test_initialisation():
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=64, vocab_size=512, n_layer=3, n_head=4, n_embd=128, bias=True))
    for name, p in model.named_parameters():
        if name.endswith('bias'):
            assert not p.any(), name
        elif '.ln_' in name:
            assert (p == 1).all(), name
        else:
            expected = 0.02 / math.sqrt(6) if name.endswith('c_proj.weight') else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.03), name
            assert abs(p.mean().item()) < 0.001, name
    assert not GPT(GPTConfig(**SMALL, ngrams=7)).transformer.wng.weight.any()


def test_every_parameter_has_a_gradient_and_one_group():
    model = small(bias=True)
    model(torch.randint(37, (2, 12)), torch.randint(37, (2, 12)))[1].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    decay, rest = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), 'cpu').param_groups
    assert decay['weight_decay'] == 0.1 and rest['weight_decay'] == 0.0
    assert {p.dim() for p in decay['params']} == {2} and {p.dim() for p in rest['params']} == {1}
    ids = [id(p) for g in (decay, rest) for p in g['params']]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_muon_takes_each_matrix_and_the_thirds_of_attention_apart():
    """A step moves each matrix by lr √max(1, rows / columns) along all its directions, AdamW has the rest, none is left out."""
    torch.manual_seed(0)
    model = small(n_embd=32, bias=True, ngrams=7)
    muon = Muon(model, 0.1, 0.0)
    adamw = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), 'cpu', list(muon.parts))
    held = [id(p) for g in adamw.param_groups for p in g['params']] + [id(p) for p in muon.parts]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert all(name.startswith('transformer.h.') == any(p is q for q in muon.parts) for name, p in model.named_parameters() if p.dim() == 2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(torch.randint(37, (8, 12)), torch.randint(37, (8, 12)))[1].backward()
    muon.take_gradients()
    muon.step()
    for name, p in model.named_parameters():
        moved = (before[name] - p).detach() / 0.1
        if not any(p is q for q in muon.parts):
            assert not moved.any(), name
        else:
            for third in moved.chunk(3 if 'c_attn' in name else 1):
                along = torch.linalg.svdvals(third) / max(1, third.size(0) / third.size(1)) ** 0.5
                assert 0.6 < along.median() and along.max() < 1.3, (name, along) # Newton and Schulz's iteration is no more exact
    assert len(muon.state_dict()['state']) == 2 * 6


def test_muon_shrinks_weights_as_adamw_does():
    """Without a gradient a step takes lr · weight_decay of each matrix away."""
    model = small()
    muon = Muon(model, 0.1, 0.5)
    before = {p: p.detach().clone() for p in muon.parts}
    for p in muon.parts:
        p.grad = torch.zeros_like(p)
    muon.take_gradients()
    muon.step()
    for p in muon.parts:
        torch.testing.assert_close(p.detach(), 0.95 * before[p])


@pytest.mark.parametrize('half, within', [(False, 1e-5), (True, 2e-2)])
def test_muon_rounds_to_bfloat16_only_if_told(half, within):
    """Its step against the iteration in float64: five times x becomes a·x + (b·s + c·s²)·x with s = x·xᵀ, x being no taller than wide."""
    model = small(n_embd=32, n_layer=1)
    muon = Muon(model, 1.0, 0.0, half)
    p = model.transformer.h[0].mlp.c_fc.weight
    before = p.detach().double()
    p.grad = torch.randn(p.shape)
    gradient = p.grad.clone()
    for q in muon.parts:
        q.grad = torch.zeros_like(q) if q is not p else p.grad
    muon.take_gradients()
    muon.step()
    x = gradient.double().T / gradient.double().norm()
    for _ in range(5):
        s = x @ x.T
        x = 3.4445 * x + (2.0315 * s @ s - 4.775 * s) @ x
    error = (before - p.detach().double() - 2 * x.T).abs().max().item() # 2 is the root of rows / columns
    assert error < within and (error > 1e-4) == half
    assert torch.equal(p.grad, gradient)
    assert torch.zeros(1).bfloat16().dtype == torch.bfloat16 # elsewhere all is as it was


def test_ngram_dropout_leaves_out_whole_rows_in_training_alone():
    model, idx = small(ngrams=50, ngram_dropout=0.25, block_size=2000), torch.randint(37, (1, 2000))
    plain = small(ngrams=50, block_size=2000)
    assert torch.equal(model(idx, idx)[1], plain(idx, idx)[1]) and torch.equal(plain.train()(idx, idx)[1], plain.eval()(idx, idx)[1])
    with torch.no_grad():
        for name, p in model.train().named_parameters():
            p.zero_() if 'wng' not in name else p.fill_(1.0)
    seen = []
    model.transformer.drop.register_forward_hook(lambda module, args, out: seen.append(out))
    model(idx, idx)
    share = seen[0][0] * 0.75 # of 0 to 3 rows, in all channels alike
    assert torch.allclose(share, share[:, :1].round().expand_as(share), atol=1e-5)
    assert [(share[:, 0].round() == n).float().mean().item() for n in range(4)] == pytest.approx([1 / 64, 9 / 64, 27 / 64, 27 / 64], abs=0.05)


def test_dropout_is_where_gpt2_has_it_in_training_alone(monkeypatch):
    attend, rates, zeros = F.scaled_dot_product_attention, [], []
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda *a, **more: rates.append(more['dropout_p']) or attend(*a, **more))
    model, idx = small(dropout=0.5), torch.randint(37, (2, 12))
    for block in model.transformer.h:
        for part in (block.attn, block.mlp):
            part.register_forward_hook(lambda part, args, out: zeros.append((out == 0).float().mean().item()))
    model.transformer.drop.register_forward_hook(lambda part, args, out: zeros.append((out == 0).float().mean().item()))
    model.train()(idx), model.eval()(idx)
    assert rates == [0.5, 0.5, 0, 0] and zeros == pytest.approx([0.5] * 5 + [0] * 5, abs=0.1)


@pytest.mark.parametrize('name, peak, slower', [('NVIDIA H100 80GB HBM3', 989, 2), ('NVIDIA H100 PCIe', 756, 2), ('NVIDIA B200', 2250, 2), ('NVIDIA L40S', 362, 2),
                                                ('Tesla T4', 65, 8), ('NVIDIA GeForce RTX 4090', 165, 2), ('NVIDIA GeForce RTX 4090 Laptop GPU', None, 1),
                                                ('NVIDIA H200 MIG 1g.18gb', None, 1), ('NVIDIA H200 NVL', 835, 2), ('NVIDIA GB200', 2500, 2),
                                                ('Tesla V100-PCIE-16GB', 112, 8), ('Tesla V100-SXM2-16GB', 125, 8), ('NVIDIA GeForce RTX 3090 Ti', None, 1),
                                                ('NVIDIA GeForce RTX 4080 SUPER', None, 1), ('NVIDIA GeForce RTX 4090 D', None, 1)])
def test_peaks_are_found_by_a_devices_name(monkeypatch, name, peak, slower):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: name)
    assert [peak_flops('cuda', dtype) for dtype in ('bfloat16', 'float32')] == [peak and 1e12 * peak, peak and 1e12 * peak / slower] and peak_flops('cpu', 'float32') is None


def test_users_may_add_to_the_shape():
    @dataclass
    class Config(GPTConfig):
        window: int | None = None
        layers_left_out: int = 0
        heads_of_keys: int = None
    GPT(Config(8, 5, 1, 2, 4))
    with pytest.raises(UserError, match='n_head must be a whole number from 1 up'):
        Config(n_head=0)


def test_heads_that_rotary_cannot_halve_are_named():
    with pytest.raises(UserError, match='n_embd 12 cannot be divided among n_head 4 heads of even size; n_head may be 1, 2, 3, 6$'):
        GPTConfig(n_embd=12, n_head=4, rotary=True)


def test_numbers_of_other_kinds_are_converted_if_nothing_is_lost():
    config = GPTConfig(vocab_size=np.int64(61), bias=0, dropout=np.float32(0.5))
    assert (type(config.vocab_size), config.bias, type(config.dropout)) == (int, False, float)
    for wrong in dict(bias=2), dict(vocab_size=np.float32(1.5)), dict(n_layer=True):
        with pytest.raises(UserError, match=next(iter(wrong))):
            GPTConfig(**wrong)


def test_a_block_of_a_config_without_our_fields():
    config = types.SimpleNamespace(n_embd=8, n_head=2, dropout=0.0, bias=True)
    assert Block(config)(torch.ones(1, 3, 8)).shape == (1, 3, 8)


def test_users_may_change_parts_of_a_model():
    """Blocks that take x alone are trained, hooks change nothing, generation needs no weights of the head, and parameters of one's own keep their values."""
    class Plain(nn.Module):
        def forward(self, x):
            return x + 1
    class Head(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
        def forward(self, x):
            return self.inner(x)
    model, idx = small(), torch.randint(37, (2, 5))
    wanted = model.generate(idx, 5, temperature=0)
    model.transformer.h[0].register_forward_pre_hook(lambda block, args: (args[0] + 0,))
    model.lm_head = Head(model.lm_head)
    assert torch.equal(model.generate(idx, 5, temperature=0), wanted)
    model.transformer.h[0] = Plain()
    model(idx, idx)[1].backward()
    assert model.estimate_mfu(1, 1, 1e9) > 0

    model = small()
    wanted = model.generate(idx, 30, temperature=0) # beyond the window
    for block in model.transformer.h: # an attention as nanoGPT has it, which knows no cache
        block.attn.forward = lambda x, attend=block.attn.forward: attend(x)
    assert torch.equal(model.generate(idx, 30, temperature=0, context_stride=1), wanted)
    assert model.generate(idx, 30, temperature=0, context_stride=4, compiled=True).shape == wanted.shape

    model, read = small(), []
    wanted = model.generate(idx[:, :3], 6, temperature=0)
    for i, block in enumerate(model.transformer.h): # wrappers, as torch.compile's, pass on what they get
        block.attn.forward = lambda *args, attend=block.attn.forward, **more: attend(*args, **more)
        model.transformer.h[i] = torch.compile(block, backend='eager')
    model.transformer.wte.register_forward_hook(lambda m, args, out: read.append(args[0].size(1)))
    assert torch.equal(model.generate(idx[:, :3], 6, temperature=0), wanted) and read == [3, 1, 1, 1, 1, 1]

    model = small()
    model.transformer.h[0].mlp.scale, model.transformer.h[0].mlp.gate_bias = (nn.Parameter(torch.full((2, 2), 7.0)) for _ in range(2))
    model.init_weights()
    assert (model.transformer.h[0].mlp.scale == 7).all() and (model.transformer.h[0].mlp.gate_bias == 7).all()


def test_one_graph_for_texts_of_any_length():
    model, T = small(), torch.export.Dim('T', min=2, max=12)
    exported = torch.export.export(model, (torch.zeros(1, 6, dtype=torch.long),), dynamic_shapes=(dict([(1, T)]),), strict=False).module()
    for n in 3, 12:
        idx = torch.randint(37, (1, n))
        torch.testing.assert_close(exported(idx)[0], model(idx)[0])


def test_frozen_models_have_both_groups():
    model = small()
    model.requires_grad_(False)
    assert [g['params'] for g in model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), 'cpu').param_groups] == [[], []]
    model.lm_head.requires_grad_(True)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), 'cpu')
    model(torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 5, dtype=torch.long))[1].backward()
    optimizer.step()
    assert [len(g['params']) for g in optimizer.param_groups] == [1, 0]


def test_nothing_is_shared_between_blocks():
    model, calls = GPT(GPTConfig(8, 5, 2, 2, 4)), []
    model.transformer.h[0].mlp.gelu.register_forward_hook(lambda *_: calls.append(1))
    GPT(GPTConfig(8, 5, 2, 2, 4))(torch.zeros(1, 8, dtype=torch.long))
    assert not calls
    model(torch.zeros(1, 8, dtype=torch.long))
    assert len(calls) == 1


def test_shapes_without_memory():
    logits, loss = GPT(GPTConfig(8, 5, 2, 2, 4)).to('meta')(*torch.zeros(2, 3, 8, dtype=torch.long, device='meta'))
    assert logits.shape == (3, 8, 5) and loss.shape == ()


def test_counts_of_parameters_and_flops():
    with torch.device('meta'):
        gpt2 = GPT(GPTConfig(vocab_size=50257))
    assert gpt2.get_num_params(non_embedding=False) == 124439808 # the 124M of OpenAI's smallest
    assert gpt2.get_num_params() == 124439808 - 1024 * 768
    with torch.device('meta'):
        assert GPT(GPTConfig(vocab_size=50257, rotary=True, ngrams=10000)).get_num_params() == gpt2.get_num_params()
    flops = 1024 * (6 * gpt2.get_num_params() + 12 * 12 * 12 * 64 * 1024)
    assert gpt2.estimate_mfu(10, 2.0, peak=1e14) == pytest.approx(10 * flops / 2.0 / 1e14)
    assert math.isnan(gpt2.estimate_mfu(10, 2.0)) # an unknown device has no peak


def test_a_block_of_ones_own_may_make_its_weights_by_normal(monkeypatch):
    class Scaled(Block):
        def __init__(self, config):
            super().__init__(config)
            self.a = nn.Parameter(torch.empty(config.n_embd).normal_(1, 0.1))
            self.b = nn.Parameter(nn.init.normal_(torch.empty(config.n_embd)).add_(1))
        def forward(self, x, **past):
            return super().forward(x * self.a * self.b, **past)
    monkeypatch.setattr('model.Block', Scaled)
    model, idx = small(), torch.randint(37, (2, 5))
    assert torch.equal(GPT.from_state(model.config, model.state_dict())(idx)[0], model(idx)[0])


def test_rotations_are_marked_as_torch_marks_constants():
    """By hand, without the second that torch.compiler's function takes to import the compiler."""
    assert vars(rotations) == vars(torch.compiler.assume_constant_result(lambda: None))


@pytest.mark.parametrize('rotary', [False, True])
def test_crop_block_size(rotary):
    model, idx = small(rotary=rotary), torch.randint(37, (2, 5))
    before = model(idx)[0]
    model.crop_block_size(5)
    torch.testing.assert_close(model(idx)[0], before)
    assert model.config.block_size == 5 and (rotary or model.transformer.wpe.weight.requires_grad and len(model.transformer.wpe.weight) == 5)
    assert rotary or model.transformer.wpe.weight.untyped_storage().nbytes() == 5 * 16 * 4 # the rest is not kept in memory and files
    with pytest.raises(ValueError, match='block_size 9'):
        model.crop_block_size(9)
    with pytest.raises(ValueError, match='got 6 tokens.*at most 5'):
        model(torch.zeros(1, 6, dtype=torch.long))


@pytest.mark.parametrize('change, words', [
    (dict(n_head=3), 'n_embd 16 .* n_head 3'), (dict(n_layer=0), 'n_layer'), (dict(vocab_size=-1), 'vocab_size'),
    (dict(block_size=1.5), 'block_size'), (dict(block_size=10 ** 12), 'parameters'), (dict(activation='swish'), 'swish'),
    (dict(n_embd=18, n_head=6, rotary=True), 'n_embd 18 .* n_head 6 .* 1, 3, 9$'), (dict(ngrams=-1), 'ngrams'), (dict(ngrams=10 ** 12), 'ngrams|parameters')])
def test_impossible_shapes_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        GPTConfig(**{**SMALL, **change})


def saved(model, path, prefix='', **more):
    args = {k: v for k, v in vars(model.config).items() if k != 'activation'}
    torch.save({'model': {prefix + k: v for k, v in model.state_dict().items()}, 'model_args': args, **more}, path)
    return path


@pytest.mark.parametrize('prefix', ['', '_orig_mod.'])
def test_a_checkpoint_gives_the_same_model(tmp_path, prefix):
    model, idx = small(bias=True), torch.randint(37, (2, 12))
    model.transformer.h[0].attn.register_buffer('bias', torch.ones(1, 1, 12, 12)) # the causal mask that old files carry
    again = GPT.from_checkpoint(load_checkpoint(saved(model, tmp_path / 'ckpt.pt', prefix)), dict(dropout=0.3)).eval()
    assert torch.equal(again(idx)[0], model(idx)[0])
    assert again.lm_head.weight is again.transformer.wte.weight # still one matrix
    assert again.config.dropout == 0.3 and all(p.requires_grad for p in again.parameters())
    assert {v.dtype for v in load_checkpoint(saved(model.half(), tmp_path / 'half.pt'))['model'].values()} == {torch.float32}


def test_tables_of_integers_beside_the_weights(tmp_path):
    """As buffers that users add, which keep their kind; weights of that kind are refused."""
    model = small()
    model.transformer.h[0].attn.register_buffer('seen', torch.tensor([True, False]))
    model.transformer.h[0].attn.register_buffer('far', torch.tensor([0, -math.inf]))
    model.config.window, model.config.places = None, (1, 2) # fields of one's own
    loaded = load_checkpoint(saved(model, tmp_path / 'ckpt.pt', config=dict(dataset='x', mine=[1])))
    assert loaded['config'] == dict(dataset='x') # settings are words and numbers
    assert loaded['model']['transformer.h.0.attn.seen'].tolist() == [True, False] and loaded['model']['transformer.h.0.attn.seen'].dtype == torch.bool
    assert loaded['model'].pop('transformer.h.0.attn.far')[1] == -math.inf and loaded['model_args'].pop('window') is None and loaded['model_args'].pop('places') == (1, 2)
    loaded['model'].pop('transformer.h.0.attn.seen')
    loaded['model']['transformer.wpe.weight'] = loaded['model']['transformer.wpe.weight'].int()
    with pytest.raises(UserError, match='do not fit'):
        GPT.from_checkpoint(loaded)


class Evil:
    def __reduce__(self):
        return (open, (Evil.path, 'w'))


def test_a_checkpoint_runs_no_code(tmp_path):
    Evil.path = str(tmp_path / 'was_run')
    path = saved(small(), tmp_path / 'ckpt.pt', extra=Evil())
    with pytest.raises(ValueError, match='might run code'):
        load_checkpoint(path)
    assert not (tmp_path / 'was_run').exists()


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    path = saved(small(), tmp_path / 'ckpt.pt')
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match='ckpt.pt'):
            load_checkpoint(path)
    torch.save({'something': 1}, path)
    with pytest.raises(ValueError, match='model is missing, model_args is missing'):
        load_checkpoint(path)
    with pytest.raises(ValueError, match='no checkpoint'):
        load_checkpoint(tmp_path / 'absent.pt')
    saved(small(), path)
    checkpoint = load_checkpoint(path)
    checkpoint['model_args']['n_embd'] = 32
    with pytest.raises(ValueError, match='do not fit'):
        GPT.from_checkpoint(checkpoint)
    checkpoint['model_args']['n_expert'] = 4
    with pytest.raises(ValueError, match='n_expert'):
        GPT.from_checkpoint(checkpoint)


def test_codec_goes_both_ways_and_names_strangers():
    tokens = ['a', 'b', '\n', '<pad>'] # the last of which nobody types
    encode, decode, n_vocab, end = get_codec({'vocab_size': 4, 'stoi': {c: i for i, c in enumerate(tokens)}, 'itos': dict(enumerate(tokens))})
    assert decode(encode('ab\nba')) == 'ab\nba' and decode([0, 3]) == 'a<pad>' and (n_vocab, end) == (4, None)
    with pytest.raises(SystemExit, match="'x' 'y'"):
        encode('axby')


def test_a_loss_in_chunks_is_the_plain_one(monkeypatch):
    model = small(vocab_size=500)
    idx, targets = torch.randint(500, (2, 4, 12))
    targets[0, :5] = -1

    def loss_and_gradients(rows, dtype=None):
        model.zero_grad()
        with torch.autocast('cpu', dtype, enabled=dtype is not None):
            logits, loss = model(idx, targets, rows)
        (3 * loss).backward()
        assert (logits is None) == (rows is not None)
        return loss.item(), [p.grad.clone() for p in model.parameters()]
    for dtype, close in ((None, 2e-6), (torch.bfloat16, 2e-2)):
        loss, gradients = loss_and_gradients(None, dtype)
        for rows in (0, 1, 7, 48, 1000):
            other, others = loss_and_gradients(rows, dtype)
            assert rows or other == loss and all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
            assert other == pytest.approx(loss, rel=close)
            for a, b in zip(gradients, others, strict=True):
                assert (a - b).norm() <= close * a.norm()
    with torch.no_grad(), monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, 'addmm_', None) # an evaluation computes no gradients
        assert model(idx, targets, 7)[1].item() == pytest.approx(model(idx, targets)[1].item(), rel=1e-6)
    targets[:] = -1 # a micro-batch without any changes nothing, though its mean is none
    for rows in (None, 7):
        loss, gradients = loss_and_gradients(rows)
        assert math.isnan(loss) and not any(g.any() for g in gradients)


def test_gradients_of_layernorms_are_summed_in_float32():
    """In bfloat16 a sum over 8192 tokens would be wrong by a tenth and more, as torch's kernel for CPUs has it."""
    model, ids = small(bias=True, block_size=1024), torch.randint(SMALL['vocab_size'], (8, 1024))
    norms, both = {n: p for n, p in model.named_parameters() if 'ln_' in n}, []
    for half in False, True:
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            loss = model(ids, ids, 0)[1]
        both.append(torch.autograd.grad(loss, norms.values()))
    for name, exact, got in zip(norms, *both, strict=True):
        assert (got - exact).norm() < 0.05 * exact.norm(), name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, None], ids=str)
def test_what_blocks_add_to_is_in_bfloat16_where_matmuls_are(dtype):
    """In float16 it would overflow, so there it stays in float32; gradients of weights are float32 throughout."""
    model, kinds = small(rotary=True, ngrams=9), []
    for block in model.transformer.h:
        block.register_forward_hook(lambda block, inputs, x: kinds.extend((inputs[0].dtype, x.dtype)))
    ids = torch.randint(SMALL['vocab_size'], (2, 12))
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        loss = model(ids, ids, 0)[1]
    loss.backward()
    assert set(kinds) == {torch.bfloat16 if dtype == torch.bfloat16 else torch.float32}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert loss.item() == pytest.approx(model(ids, ids)[1].item(), abs=0.05)
