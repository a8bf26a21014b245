"""The scripts behind the README's figures."""
import json
import os
import subprocess
import re
import sys

import pytest
import torch
from conftest import ROOT, run, train

sys.path.insert(0, str(ROOT / 'assets'))
import compare # noqa: E402
import parallel # noqa: E402
from model import GPT, GPTConfig # noqa: E402


def script(name, *args):
    return subprocess.run([sys.executable, str(ROOT / 'assets' / name), *map(str, args)], capture_output=True, text=True)


def test_curves_leave_out_what_a_later_start_undid(dataset, tmp_path):
    pytest.importorskip('matplotlib')
    train(dataset, tmp_path)
    train(dataset, tmp_path, max_iters=4)
    train(dataset, tmp_path, max_iters=5, init_from='resume')
    found = run('assets/plot.py', tmp_path, save=tmp_path / 'curves.svg').space['events'](str(tmp_path))
    assert [[e['iter'] for e in found[event]] for event in ('log', 'eval')] == [[0, 1, 2, 3, 4], [0, 3, 4, 5]]


def test_curves_of_runs(dataset, trained, tmp_path):
    pytest.importorskip('matplotlib')
    train(dataset, tmp_path / 'other', seed=7)
    with open(tmp_path / 'other/metrics.jsonl', 'ab') as f:
        f.write(b'5\n{}\n\xff\n' + b'[' * 200000 + b'\n{"event": "log", "it') # cut short by a crash, and of other kinds
    run('assets/plot.py', trained, save='curves.xyz').refused('curves.xyz', 'svg')
    done = script('plot.py', trained, tmp_path / 'other', f'--save={tmp_path}/curves.svg')
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / 'curves.svg').read_text(encoding='utf-8')
    assert all(f'>{word}<' in svg for word in ('other', 'out', 'learning rate', 'gradient norm', 'tokens/s')) and '#000000' not in svg
    assert script('plot.py', trained, f'--save={tmp_path}/curves.png').returncode == 0
    assert (tmp_path / 'curves.png').read_bytes()[1:4] == b'PNG'
    done = script('plot.py', tmp_path / 'nowhere')
    assert done.returncode == 1 and 'Traceback' not in done.stderr and 'give the out_dir of a run' in done.stderr


def test_the_committed_results_say_how_they_were_made():
    for path in (ROOT / 'assets/results').glob('*.json'):
        result = json.loads(path.read_text(encoding='utf-8'))
        assert result['command'].startswith('python assets/') and (result.get('torch') or result['tiktoken']) and result['rows'], path


@pytest.mark.slow
def test_a_point_of_the_scaling_table():
    point = dict(block_size=64, batch_size=1, n_layer=1, n_embd=64, vocab_size=100)
    flops, seconds, memory = json.loads(script('scaling.py', '--point', json.dumps(point)).stdout)
    n = 100 * 64 + 12 * 64 ** 2 + 3 * 64 # parameters but for positions
    assert flops == 64 * (6 * n + 12 * 64 * 64) and seconds > 0 and memory > 10


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_counted_activations_are_linear(dtype):
    count = lambda **shape: parallel.saved(dtype, **shape)
    once = count(B=2, T=32) - count(B=1, T=32) # of 32 tokens; casts of weights, which both have, fall out
    assert once == count(T=64) - count(T=32) - 8 * 32 > 0 # positions are not of the batch
    assert count(B=5, T=32) - count(B=1, T=32) == 4 * once
    assert count(n_layer=4) - count(n_layer=1) == 3 * (count(n_layer=2) - count(n_layer=1))
    LC, Lnh, L, C, V, one = parallel.coefficients(dtype)
    other = dict(n_layer=3, n_head=4, n_embd=96, vocab_size=50) # not a shape that was fitted
    assert count(**other, B=3) - count(**other, B=1) == pytest.approx(32 * (3 * (LC * 96 + Lnh * 4 + L) + C * 96 + V * 50 + one))


def test_the_formula_of_memory(monkeypatch):
    monkeypatch.setitem(parallel.SHAPES, 'tiny', (2, 2, 64))
    terms = parallel.memory('tiny')
    model = GPT(GPTConfig(parallel.T, parallel.V, 2, 2, 64, 0.0, False))
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), 'cpu')
    ids = torch.zeros(1, 4, dtype=torch.long)
    model(ids, ids)[1].backward()
    optimizer.step()
    size = lambda tensors: sum(x.untyped_storage().nbytes() for x in tensors)
    assert terms['parameters'] == size(model.parameters()) and terms['gradients'] == size(p.grad for p in model.parameters())
    assert terms['moments'] == size(x for state in optimizer.state.values() for k, x in state.items() if k != 'step')
    for how in {}, dict(dtype='float32'), dict(n=4, fsdp=True), dict(n=4, fsdp=True, checkpointing=True), dict(n=4, fsdp=True, dtype='float32'):
        assert sum(parallel.memory('tiny', **how).values()) == pytest.approx(parallel.tracked('tiny', **how), rel=1e-4), how


@pytest.mark.parametrize('name', ['model', 'flow'])
def test_drawings_are_what_the_script_draws(name, tmp_path):
    committed = (ROOT / f'assets/{name}.svg').read_text(encoding='utf-8')
    version = re.search(r'Matplotlib v([\w.]+)', committed)[1]
    matplotlib = pytest.importorskip('matplotlib')
    if matplotlib.__version__ != version:
        pytest.skip(f'drawn with matplotlib {version}, here is {matplotlib.__version__}')
    import drawings
    getattr(drawings, f'draw_{name}')(tmp_path / 'drawn.svg')
    assert (tmp_path / 'drawn.svg').read_text(encoding='utf-8') == committed, "run python assets/drawings.py"


def test_tables_of_scaling_are_the_recorded_ones(monkeypatch):
    result = json.loads((ROOT / 'assets/results/parallel.json').read_text(encoding='utf-8'))
    doc = (ROOT / 'docs/scaling.md').read_text(encoding='utf-8')
    for mark, rows in parallel.tables(result).items():
        assert f'<!-- {mark} -->\n{rows}\n<!-- end -->' in doc, f"{mark}: run {result['command']}"
    assert result['coefficients'] == {d: parallel.coefficients(d) for d in ('float32', 'bfloat16')}
    monkeypatch.setattr(parallel, 'tracked', lambda *args, **how: 0) # which test_the_formula_of_memory looks at
    assert all(v == result[k] for k, v in json.loads(json.dumps(parallel.compute())).items() if k in ('terms', 'fits', 'efficiency'))
    for target in re.findall(r'\]\((?!https://)([^)]+)\)|src="([^"]+)"', doc):
        assert (ROOT / 'docs' / ''.join(target)).is_file(), target


def test_waiting_for_the_network():
    share = lambda *args: parallel.efficiency('gpt2', *args)[0]
    assert share(1, 50, False, 1) == share(1, 50, True, 1) == 1 # alone
    assert share(64, 50, False, 1) < share(64, 400, False, 1) < share(64, 400, False, 8) < 1 # bandwidth and accumulation help
    assert share(64, 50, True, 1) == pytest.approx(share(64, 50, True, 8)) # which FSDP does not gain from
    assert share(64, 3200, False, 1) == share(64, 3200, True, 1) == 1 # all hidden


def test_compare_reads_what_a_script_prints(tmp_path):
    (tmp_path / 'train.py').write_text(
        "import time\n"
        "for i in range(3):\n"
        "    print(f'step {i}: train loss 4.0, val loss {3 - i}.5000')\n"
        "    print(f'iter {i}: loss 1.0, time {10 * i}.50ms, mfu 0.00% (n/a)'), time.sleep(0.1)\n")
    lines, seconds, memory = compare.process(['train.py'], tmp_path)
    curve = compare.printed(lines, r'step \d+: .*val loss ([\d.]+)')
    assert [val for _, val in curve] == [3.5, 2.5, 1.5] and 0 < curve[0][0] < curve[1][0] < curve[2][0] < seconds and memory > 1
    assert curve[1][0] - curve[0][0] > 0.09 # a line counts when it is printed, not when the script ends
    assert compare.median_ms([(0, f'iter {i}: loss 1.0, time {ms}ms') for i, ms in enumerate((900, 1, 2, 3))]) == 2 # not the first quarter
    assert compare.median_ms(lines) == 10.5 and compare.evaluation_ms(lines) > 90
    with pytest.raises(SystemExit, match='why it ended'):
        compare.process(['-c', "import sys; sys.exit('why it ended')"], tmp_path)


def test_provenance_without_git(monkeypatch):
    monkeypatch.setenv('PATH', '')
    found = compare.provenance('a command')
    assert not found['commit'] and found['command'] == 'a command' and found['torch']


def test_ratios_are_of_ours_to_theirs():
    row, = compare.compared({'speed': [(1, 2), (4, 4), (2, 6)]})
    assert row == dict(what='speed', theirs=[1, 4, 2], ours=[2, 4, 6], ratio=2, least=1, most=3)


def test_compare_refuses(tmp_path):
    run('assets/compare.py', tmp_path, 'start').refused('there is no model.py', 'give a clone of nanoGPT')
    run('assets/compare.py', tmp_path, 'nothing').refused("'nothing'", 'bench')
    (tmp_path / 'model.py').write_text('')
    run('assets/compare.py', tmp_path, 'bench', '--max_iters=3').refused('--max_iters=3 is no option of bench')
    run('assets/compare.py', tmp_path, 'loss', '--compile').refused('no compiled form')
    run('assets/compare.py', tmp_path, 'loss', '--rounds=3', '--seeds=1,2').refused('3 rounds', '1,2')
    run('assets/compare.py', tmp_path, 'small', '--device=cuda:99').refused("device 'cuda:99' is not on this machine")
    run('assets/whole_val.py', tmp_path, tmp_path / 'ckpt.pt').refused('there is no checkpoint', 'give the folder of a run')


@pytest.mark.parametrize('script, args, words', [
    ('ablations.py', ['nowhere'], ["'nowhere' is no character dataset", 'prepare']),
    ('whole_val.py', ['data/x'], ['got data/x', 'checkpoints']),
    ('save_pause.py', [], ['got nothing', 'give a folder']),
    ('save_pause.py', ['.', 'x'], ['got . x', 'how many rounds']),
    ('tokenize_speed.py', ['nowhere'], ['cannot read nowhere']),
    ('scaling_processes.py', ['--rounds=0'], ['--rounds=0', '1 or more']),
])
def test_measurements_refuse(monkeypatch, script, args, words):
    monkeypatch.syspath_prepend(ROOT / 'assets')
    run(f'assets/{script}', *args).refused(*words)


def test_whole_val_is_the_mean_over_windows(dataset, trained):
    import numpy as np
    from model import load_checkpoint
    from whole_val import whole_val
    checkpoint = load_checkpoint(trained / 'ckpt.pt')
    ids = torch.from_numpy(np.fromfile(dataset / 'val.bin', np.uint16).astype(np.int64))
    model = GPT.from_checkpoint(checkpoint).eval()
    with torch.no_grad():
        slow = [model(ids[None, i:i + 8], ids[None, i + 1:i + 9])[1].item() for i in range(0, len(ids) - 8, 8)]
    assert whole_val(trained / 'ckpt.pt', dataset, 8) == (pytest.approx(sum(slow) / len(slow)), 6)


def test_losses_as_a_drawing_and_a_table(tmp_path):
    pytest.importorskip('matplotlib')
    runs = [dict(who=who, config=config, seed=seed, seconds=seconds + seed, whole_val=val + seed / 100, iterations=20, curve=[[5, 4.2], [9, 2.1]])
            for seed in (1, 3) for who, config, seconds, val in (('nanoGPT', 'config/a.py --device=cpu', 99, 1.9),
                                                                 ('here', 'config/a.py config/b.py', 49, 1.8), ('here', 'c.py', 19, 1.7))]
    of = dict(command='python assets/compare.py', device='a CPU', torch='2')
    (tmp_path / 'loss-cpu.json').write_text(json.dumps(dict(of, rows=runs)))
    (tmp_path / 'eval-cpu.json').write_text(json.dumps(dict(of, rows=[dict(what='speed', theirs=[1, 2, 4], ours=[2, 4, 6], ratio=2, least=1.5, most=2)])))
    done = script('plot.py', f'--results={tmp_path}')
    assert done.returncode == 0, done.stderr
    assert '| nanoGPT | 1, 3 | 1.9200, 1.9100 to 1.9300 | 101.0, 100.0 to 102.0 | 1.00, 1.00 to 1.00 |' in done.stdout
    assert '| here, a + b | 1, 3 | 1.8200, 1.8100 to 1.8300 | 51.0, 50.0 to 52.0 | 1.98, 1.96 to 2.00 |' in done.stdout
    assert '| eval: speed | 2.0 | 4.0 | 2.00, 1.50 to 2.00 | `python assets/compare.py`, a CPU, torch 2 |' in done.stdout
    svg = (tmp_path / 'loss-cpu.svg').read_text(encoding='utf-8')
    assert all(f'>{name}, 2 seeds<' in svg for name in ('nanoGPT', 'here, a + b', 'here, c')) and '#000000' not in svg


needs_clone = pytest.mark.skipif(not os.path.isdir(os.environ.get('NANOGPT_DIR', '')), reason="NANOGPT_DIR, a clone of nanoGPT, is not set")


@pytest.mark.slow
@needs_clone
@pytest.mark.parametrize('job', ['start', 'sample'])
def test_compare(job, tmp_path):
    done = script('compare.py', os.environ['NANOGPT_DIR'], job, '--rounds=1', f'--out={tmp_path}')
    assert done.returncode == 0 and 'ratio' in done.stdout, done.stderr
    rows = json.loads((tmp_path / f'{job}-cpu.json').read_text(encoding='utf-8'))['rows']
    assert rows and all(row['ratio'] > 0.1 and len(row['ours']) == len(row['theirs']) == 1 for row in rows)


@pytest.mark.slow
@needs_clone
@pytest.mark.skipif(not os.environ.get('NANOGPT_SHAKESPEARE'), reason="NANOGPT_SHAKESPEARE, the path of the text, is not set")
def test_time_to_a_loss(tmp_path):
    tiny = ('--max_iters=40', '--eval_interval=20', '--eval_iters=2', '--warmup_iters=2')
    done = script('compare.py', os.environ['NANOGPT_DIR'], 'loss', '--rounds=2', f'--out={tmp_path}', *tiny)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'loss-cpu.json').read_text(encoding='utf-8'))['rows']
    assert [(r['who'], r['seed']) for r in rows] == [('nanoGPT', 1337), ('here', 1337), ('here', 7), ('nanoGPT', 7)]
    for r in rows:
        seconds, losses = zip(*r['curve'], strict=True)
        assert len(losses) == 3 and losses[0] > losses[2] and seconds[0] < seconds[2] < r['seconds'] and 2 < r['whole_val'] < 4
    assert len({r['whole_val'] for r in rows}) == 4 # a seed reaches both


def test_settings_by_hand_count_for_both(monkeypatch):
    seen = []
    def process(command, cwd, device):
        seen.append(dict(a[2:].split('=', 1) for a in command[1:])) # as both configurators read them, the last of a name
        return [(0, 'iter 0: loss 1, time 1000.00ms')], 1, 1
    monkeypatch.setattr(compare, 'process', process)
    monkeypatch.setattr(compare, 'args', compare.argparse.Namespace(peer='peer', device='cpu', compile=False, rounds=1, more=['--max_iters=12', '--batch_size=48']), raising=False)
    found = compare.JOBS['small']()
    assert [s['max_iters'] for s in seen] == ['11', '12'] # nanoGPT makes one update more
    assert found['training, tokens/s'] == ((48 * 64, 48 * 64),)


def test_memory_is_the_devices_where_a_run_says_it(tmp_path):
    (tmp_path / 'run.py').write_text("print('MB on the device: 7.5')")
    lines, seconds, memory = compare.process(['run.py'], tmp_path)
    assert memory == 7.5 and 0 < lines[0][0] < seconds
