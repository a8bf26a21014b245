"""What only a CUDA device can show: python -m pytest tests -m gpu"""
import re

import pytest
import torch
import torch._dynamo
from conftest import TINY, events, run, train

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def afresh():
    """No compiled code of an earlier test, and no TF32, which rounds more than draws can bear."""
    torch._dynamo.reset()
    torch.set_float32_matmul_precision('highest')
    yield
    torch.set_float32_matmul_precision('highest')


CUDA = {k: v for k, v in TINY.items() if k != 'device'} # no flag at all


def test_the_default_run_compiles_in_bfloat16(dataset, tmp_path):
    out = train(dataset, tmp_path, **{**CUDA, 'device': 'auto'}).out
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert re.search(rf"^device cuda .*computing in {'bfloat16' if native else 'float16'}, compile True", out, re.M)
    assert len(events(tmp_path, 'log')) == 6
    sample = run('sample.py', out_dir=tmp_path, num_samples=2, max_new_tokens=30)
    assert sample.code == 0 and sample.out.count('---------------\n') == 2


@pytest.mark.parametrize('more', [{}, dict(rotary=True, ngrams=99), dict(rotary=True, ngrams=99, compile=True), dict(activation_checkpointing=True)], ids=str)
def test_the_gpu_computes_what_the_cpu_does(dataset, tmp_path, more):
    train(dataset, tmp_path / 'cpu', **more | dict(compile=False))
    train(dataset, tmp_path / 'gpu', device='cuda', dtype='float32', **dict(compile=False) | more)
    cpu, gpu = ([e['loss'] for e in events(tmp_path / d, 'log')] for d in ('cpu', 'gpu'))
    assert gpu == pytest.approx(cpu, abs=2e-3) # TF32


def test_muon_learns_there_in_each_precision(dataset, tmp_path):
    for dtype in ('float32', 'bfloat16', 'float16'):
        train(dataset, tmp_path / dtype, device='cuda', dtype=dtype, compile=False, optimizer='muon', max_iters=20, lr_decay_iters=20)
        losses = [e['loss'] for e in events(tmp_path / dtype, 'log')]
        assert losses[-1] < losses[0] - 0.3


def test_float16_scales_its_loss_and_saves_the_scale(dataset, tmp_path):
    train(dataset, tmp_path, device='cuda', dtype='float16', compile=False, max_iters=12)
    ckpt = torch.load(tmp_path / 'ckpt.pt', weights_only=True)
    assert ckpt['scaler']['scale'] > 0 and all(v.isfinite().all() for v in ckpt['model'].values())
    assert train(dataset, tmp_path, device='cuda', dtype='float16', compile=False, max_iters=14, init_from='resume').code == 0


def test_bench_knows_the_device(tmp_path):
    out = run('bench.py', cwd=tmp_path, n_layer=2, n_head=2, n_embd=64, block_size=64, real_data=False).out
    assert re.search(r'time per iteration: [\d.]+ms, MFU: [\d.]+%', out)


def test_a_device_that_is_not_there(dataset, tmp_path):
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'device': 'cuda:99'}).refused('cuda:99', 'cuda:0')


@pytest.mark.parametrize('compiled', [False, True])
def test_a_deterministic_run_goes_on_to_the_same_bits(dataset, tmp_path, compiled):
    args = dict(device='cuda', deterministic=True, compile=compiled, dropout=0.1, gradient_accumulation_steps=2)
    train(dataset, tmp_path / 'whole', **args)
    train(dataset, tmp_path / 'parts', **args, max_iters=3)
    train(dataset, tmp_path / 'parts', **args, init_from='resume')
    whole, parts = (torch.load(tmp_path / d / 'ckpt.pt', weights_only=True)['model'] for d in ('whole', 'parts'))
    assert all(torch.equal(v, parts[k]) for k, v in whole.items())


def test_an_update_that_is_not_finite_is_left_out_there_too(dataset, tmp_path, monkeypatch):
    import model
    forward, calls = model.GPT.forward, []

    def sometimes(self, idx, targets=None, rows=0):
        logits, loss = forward(self, idx, targets, rows)
        calls.append(self.training)
        return logits, loss * float('nan') if self.training and sum(calls) == 3 else loss
    monkeypatch.setattr(model.GPT, 'forward', sometimes)
    train(dataset, tmp_path, device='cuda', compile=False, eval_interval=100)
    assert [e['left_out'] for e in events(tmp_path, 'log')] == [0, 0, 1, 0, 0, 0]


def gpu_model():
    from model import GPT, GPTConfig
    torch.manual_seed(0)
    return GPT(GPTConfig(block_size=64, vocab_size=128, n_layer=2, n_head=2, n_embd=64)).eval()


def test_generation_draws_what_the_cpu_draws():
    draws = torch.rand(3, 100)
    args = dict(temperature=0.8, top_k=50, context_stride=16, draws=draws)
    prompts = [[1], [2, 3, 4], [5] * 40]
    cpu, gpu, graph = (torch.stack(list(m.stream(prompts, 100, **args, **more)), 1).tolist()
                       for m, more in ((gpu_model(), {}), (gpu_model().cuda(), {}), (gpu_model().cuda(), dict(compiled=True))))
    assert cpu == gpu == graph


def test_a_compiled_step_is_a_cuda_graph():
    from torch.profiler import profile
    model = gpu_model().cuda()
    for _ in model.stream([[1], [2]], 20, compiled=True):
        pass
    with profile() as trace:
        for _ in model.stream([[1], [2]], 20, compiled=True):
            pass
    launches = sum(e.count for e in trace.key_averages() if e.key == 'cudaGraphLaunch')
    assert launches >= 15, [e.key for e in trace.key_averages()][:50]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_sampling_in_each_precision(dataset, tmp_path, dtype):
    train(dataset, tmp_path, device='cuda', compile=False)
    for compile in (False, True):
        result = run('sample.py', out_dir=tmp_path, num_samples=2, max_new_tokens=30, dtype=dtype, device='cuda', compile=compile)
        assert result.code == 0 and result.out.count('---------------\n') == 2, result.err


def test_bench_times_generation_there(tmp_path):
    out = run('bench.py', cwd=tmp_path, mode='generate', n_layer=2, n_head=2, n_embd=64, block_size=64, batch_size=4, real_data=False).out
    assert out.count('ms a step') == 2
