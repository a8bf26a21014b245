"""The defaults of the scripts and the files in config/: each loads, and holds what people rely on."""
import re

import pytest
from conftest import ROOT, run

CONFIGS = sorted((ROOT / 'config').glob('*.py'))

# what anyone who knows nanoGPT may rely on
DEFAULTS = {
    'train.py': dict(
        out_dir='out', eval_interval=2000, log_interval=1, eval_iters=200, eval_only=False, always_save_checkpoint=True,
        init_from='scratch', wandb_log=False, wandb_project='owt', wandb_run_name='gpt2', dataset='openwebtext',
        gradient_accumulation_steps=40, batch_size=12, block_size=1024, n_layer=12, n_head=12, n_embd=768, dropout=0.0, bias=False,
        learning_rate=6e-4, max_iters=600000, weight_decay=0.1, beta1=0.9, beta2=0.95, grad_clip=1.0, decay_lr=True,
        warmup_iters=2000, lr_decay_iters=600000, min_lr=6e-5),
    'sample.py': dict(init_from='resume', out_dir='out', start='\n', num_samples=10, max_new_tokens=500, temperature=0.8, top_k=200,
                      seed=1337, compile=False),
    'bench.py': dict(batch_size=12, block_size=1024, bias=False, real_data=True, seed=1337, profile=False,
                     n_layer=12, n_head=12, n_embd=768), # GPT-2 124M
}
GPT2 = dict(batch_size=8, eval_iters=500, eval_only=True)
VALUES = {
    'train_shakespeare_char': dict(
        out_dir='out-shakespeare-char', eval_interval=250, eval_iters=200, log_interval=10, always_save_checkpoint=False,
        dataset='shakespeare_char', gradient_accumulation_steps=1, batch_size=64, block_size=256, n_layer=6, n_head=6, n_embd=384,
        dropout=0.2, learning_rate=1e-3, max_iters=5000, lr_decay_iters=5000, min_lr=1e-4, beta2=0.99, warmup_iters=100,
        wandb_project='shakespeare-char', wandb_run_name='mini-gpt'),
    'train_gpt2': dict(
        wandb_log=True, wandb_project='owt', wandb_run_name='gpt2-124M', batch_size=12, block_size=1024, gradient_accumulation_steps=40,
        max_iters=600000, lr_decay_iters=600000, eval_interval=1000, eval_iters=200, log_interval=10, weight_decay=0.1),
    'finetune_shakespeare': dict(
        out_dir='out-shakespeare', eval_interval=5, eval_iters=40, dataset='shakespeare', init_from='gpt2-xl',
        always_save_checkpoint=False, batch_size=1, gradient_accumulation_steps=32, max_iters=20, learning_rate=3e-5, decay_lr=False),
    'eval_gpt2': dict(GPT2, init_from='gpt2'),
    'eval_gpt2_medium': dict(GPT2, init_from='gpt2-medium'),
    'eval_gpt2_large': dict(GPT2, init_from='gpt2-large'),
    'eval_gpt2_xl': dict(GPT2, init_from='gpt2-xl'),
    'cpu': dict(n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12, max_iters=2000, lr_decay_iters=2000, dropout=0.0,
                eval_iters=20, log_interval=1),
}


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    """The settings of a script after its arguments, from its part down to the configurator."""
    folder = tmp_path_factory.mktemp('heads')
    (folder / 'configurator.py').write_bytes((ROOT / 'configurator.py').read_bytes())
    for script in DEFAULTS:
        source = (ROOT / script).read_text(encoding='utf-8')
        head = source[:re.search(r'^exec\(.*\n', source, re.M).end()]
        (folder / script).write_text(head, encoding='utf-8')
    def call(script, *args):
        result = run(folder / script, *args, device='cpu')
        assert (result.code, result.err) == (0, ''), result.err
        return result.space
    return call


@pytest.mark.parametrize('script', DEFAULTS)
def test_defaults(settings, script):
    config = settings(script)['config']
    held = {k: config.get(k, 'missing') for k in DEFAULTS[script]}
    assert held == DEFAULTS[script]
    assert [type(v) for v in held.values()] == [type(v) for v in DEFAULTS[script].values()]
    assert {'device', 'dtype', 'compile', 'seed'} <= set(config)
    assert script != 'train.py' or 'backend' in config


@pytest.mark.parametrize('name', VALUES)
def test_values(settings, name):
    space, defaults = settings('train.py', ROOT / 'config' / f'{name}.py'), settings('train.py')['config']
    config = space['config']
    assert {k: config[k] for k in VALUES[name]} == VALUES[name]
    changed = {k for k in config if config[k] != defaults[k]}
    assert changed - set(VALUES[name]) <= {'wandb_project', 'wandb_run_name'} # and nothing else


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_every_file_loads(path):
    result = run('train.py', path, dataset='/nonexistent', device='cpu')
    result.refused('train.py: there is no dataset')
    assert 'settings given: ' in result.out


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.stem.startswith('train_') and p.stem.endswith('_char')], ids=lambda p: p.stem)
def test_cpu_goes_over_every_character_config(settings, path):
    config = settings('train.py', path, ROOT / 'config' / 'cpu.py')['config']
    assert {k: config[k] for k in VALUES['cpu']} == VALUES['cpu']
    assert config['dataset'] == path.stem.removeprefix('train_')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_files_say_how_they_are_used(path):
    head = path.read_text(encoding='utf-8')
    named = re.findall(r'(?:config|data)/\w+(?:/prepare)?\.py', head)
    assert f'config/{path.name}' in named
    assert all((ROOT / name).is_file() for name in named), named


def test_gpt2_reads_half_a_million_tokens_an_iteration(settings):
    s = settings('train.py', ROOT / 'config' / 'train_gpt2.py')
    assert s['batch_size'] * s['block_size'] * s['gradient_accumulation_steps'] == 491520
