"""What people type and what config files say, read by a toy script; then what is made of 'auto'."""
import ast
import os
import subprocess
import sys
import types

import pytest
import torch
from conftest import ROOT, run

TOY = f'''"""A toy that prints nothing itself."""
import os
out_dir = 'out' # where things go
whole = 3
real = 6e-4 # a rate
switch = False
off = True # on unless said otherwise
text = "x"
top_k = 200
batch_size = 12
dropout = 0.0
learning_rate = 1e-3
seed = 1337
device = 'cpu'
dtype = 'auto'
compile = 'auto' # or True or False
backend = 'auto'
_here = os.getcwd()
_before = None
_before = set(globals())
exec(open({str(ROOT / 'configurator.py')!r}, encoding='utf-8').read())
_left = set(globals()) - _before
for index in range(3):
    pass
'''
DEFAULTS = dict(out_dir='out', whole=3, real=6e-4, switch=False, off=True, text='x', top_k=200, batch_size=12, dropout=0.0,
                learning_rate=1e-3, seed=1337, device='cpu', dtype='float32', compile=False, backend='gloo')


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Run the toy with arguments; its folder, toy.folder, is also where it is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'toy.py').write_text(TOY, encoding='utf-8')
    def call(*args, cwd=None):
        return run(tmp_path / 'toy.py', *args, cwd=cwd)
    call.folder = tmp_path
    return call


def write(folder, name, source):
    (folder / name).write_bytes(source if isinstance(source, bytes) else source.encode('utf-8'))


def agrees(result, **changed):
    """Assert that the settings are the defaults but for these, in the globals and in config, and given names just these."""
    assert result.code == 0, result.err
    assert result.err == ''
    wanted = {**DEFAULTS, **changed}
    assert result.space['config'] == wanted
    assert {k: result.space[k] for k in wanted} == wanted
    assert [type(v) for v in result.space['config'].values()] == [type(v) for v in wanted.values()]
    assert result.space['given'] == set(changed)


# ---- the command line --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('arg, value', [
    ('whole=1e4', 10000), ('whole=12.0', 12), ('whole=7', 7), ('whole=0', 0), ('whole=None', 0), ('top_k=None', 0),
    ('real=1', 1.0), ('real=1e-5', 1e-5), ('real=.5', 0.5), ('real=0', 0.0), ('real=None', 0.0),
    *((f'switch={word}', True) for word in ('True', 'true', 'TRUE', '1')),
    *((f'off={word}', False) for word in ('False', 'false', 'FALSE', '0')),
    ('compile=true', True), ('compile=0', False),
    *((f'text={word}', word) for word in ('a=b', '42', '2024', '1e4', '007', 'True', 'None', '', ' ', '--x', '"q"', '[1]', 'a\nb', 'ünï')),
    ('seed=18446744073709551615', 2 ** 64 - 1),
])
def test_conversions(toy, arg, value):
    key = arg.split('=')[0]
    agrees(toy('--' + arg), **{key: value})
    agrees(toy(arg), **{key: value})


@pytest.mark.parametrize('args, changed', [
    ([], {}),
    (['--whole', '7', '--text', 'a=b', '--real', '1'], dict(whole=7, text='a=b', real=1.0)),
    (['--text', '-x', '--text', ''], dict(text='')),
    (['--switch'], dict(switch=True)),
    (['--switch', '--compile', '--whole=7'], dict(switch=True, compile=True, whole=7)),
    (['--off', 'false', '--compile', 'False', '--switch', '1'], dict(off=False, compile=False, switch=True)),
    (['--switch', 'whole=7'], dict(switch=True, whole=7)),
    (['whole=7', '--whole=8', '--whole', '9'], dict(whole=9)),
    (['--switch', 'a.py'], dict(switch=True, whole=10, text='a')),
    (['a.py', 'b.py'], dict(whole=20, real=0.5, text='a')),
    (['b.py', 'a.py'], dict(whole=10, real=0.5, text='a')),
    (['--whole=1', '--text=c', 'a.py', '--real=1', 'b.py'], dict(whole=20, text='a', real=0.5)),
    (['a.py', '--text=c', 'b.py', '--whole=1'], dict(whole=1, text='c', real=0.5)),
])
def test_left_to_right(toy, args, changed):
    write(toy.folder, 'a.py', 'whole = 1\nwhole = 10\ntext = "a"\n')
    write(toy.folder, 'b.py', 'whole = 20\nreal = 0.5\n')
    agrees(toy(*args), **changed)


@pytest.mark.parametrize('args, words', [
    (['--batch_sise=3'], ["'batch_sise'", "'batch_size'"]),
    (['batch_sise=3'], ["'batch_sise'", "'batch_size'"]),
    (['--batch_sise', '3'], ["'batch_sise'", "'batch_size'"]),
    (['--learning-rate=1'], ["'learning_rate'"]),
    *(([f'--{name}=1'], [f'{name!r}']) for name in ('index', 'os', 'config', 'given', 'rank', 'ctx', '_here', '__name__', '')),
    *(([f'--whole={v}'], ['whole', 'whole number', repr(v)]) for v in ('x', '1.5', 'True', '', 'nan', 'inf', '-inf', '1e400', '0x10', '1,000')),
    *(([f'--real={v}'], ['real', 'a number', repr(v)]) for v in ('x', 'True', '', 'nan', 'inf', '-inf', '1e400', '1e-3x')),
    *(([f'--switch={v}'], ['switch', 'True or False', repr(v)]) for v in ('yes', '2', '', 'None', 'auto')),
    (['--compile=2'], ['compile', 'True', 'False']),
    (['--batch_size=0'], ['batch_size', 'at least 1']),
    (['--batch_size=None'], ['batch_size', 'at least 1']),
    (['--whole=-1'], ['whole', 'at least 0']),
    (['--real', '-0.5'], ['real', 'at least 0']),
    (['--dropout=1'], ['dropout', 'below 1']),
    (['--seed=1e30'], ['seed']),
    (['--seed=18446744073709551616'], ['seed']),
    (['--whole'], ['--whole', 'needs a value']),
    (['--text', '--whole=1'], ['--text', 'needs a value']),
    (['--text=\udcff'], ['text']),
    (['--a\nb=1'], ['nearest']),
    (['nowhere.py'], ['nowhere.py', 'No such file', '--key=value']),
    (['.'], ['config file']),
    ([''], ['config file']),
    (['-whole=1'], ['-whole=1', '--key=value']),
])
def test_refused_on_the_command_line(toy, args, words):
    result = toy(*args)
    result.refused('toy.py: ', *words)
    assert result.out == ''


def test_only_settings_of_the_real_scripts():
    for name in ('iter_num', 'X', 'np', 'model', 'GPT', 'meta'):
        run('train.py', f'--{name}=1').refused(f'{name!r}')


# ---- config files --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('source, changed', [
    ('', {}),
    ('whole = 1e4; real = 1; switch = 1; text = 2024; top_k = None', dict(whole=10000, real=1.0, switch=True, text='2024', top_k=0)),
    ('whole *= 2', dict(whole=6)),
    ('whole = 3', dict(whole=3)), # the default, but said: it counts as given
    ('import math, os.path\nfrom math import pi\nreal = math.sqrt(4)', dict(real=2.0)),
    ('side = 5\nwhole = side * side', dict(whole=25)),
    ('_note = "mine"\n_seen = 1', {}),
    ('def double(x):\n    return 2 * x\nclass Box: size = 4\nwhole = double(Box.size)', dict(whole=8)),
    ('for k in (1, 2):\n    whole = k', dict(whole=2)),
    ('from pathlib import Path\nout_dir = Path("a")', dict(out_dir='a')),
    ('globals()["whole"] = 9', dict(whole=9)),
    ('if __name__ == "__main__" and __file__.endswith("c.py"):\n    whole = 8', dict(whole=8)),
    ('text = "ünï"', dict(text='ünï')),
    (b'\xef\xbb\xbfwhole = 4\r\n', dict(whole=4)), # as Windows' editor saves it
])
def test_config_files(toy, source, changed):
    write(toy.folder, 'c.py', source)
    result = toy('c.py')
    agrees(result, **changed)
    public = {name for name in result.space['_left'] if not name.startswith('_')}
    assert public == {'config', 'given', 'refuse', 'rank', 'local_rank', 'world_size', 'device_type', 'ctx'}
    assert not {'_configure', '_settle', '_sys', '_note'} & set(result.space)


@pytest.mark.parametrize('source, words', [
    ('batch_sise = 3', ["'batch_sise'", "'batch_size'"]),
    ('batch_sise = 3\nassert batch_sise', ["'batch_sise'", "'batch_size'"]), # used, but too near to be a helper
    ('batch_sise = None', ["'batch_sise'", "'batch_size'"]),
    ('import numpy as np\nlearning_rat = np.float64(1e-3)', ["'learning_rat'", "'learning_rate'"]),
    ('whole = 1.5', ['whole', 'whole number', '1.5']),
    ('whole = True', ['whole', 'whole number']),
    ('whole = [1]', ['whole', 'whole number', '[1]']),
    ('real = float("nan")', ['real', 'nan']),
    ('switch = "yes"', ['switch', 'True or False', 'yes']),
    ('text = None', ['text', 'None']),
    ('batch_size = 0', ['batch_size', 'at least 1']),
    ('whole = 1\nwhole = = 2', ['line 2']),
    ('whole = 1 / 0', ['ZeroDivisionError']),
    ('raise ValueError("two\\nlines")', ['ValueError', 'two']),
    ('import no_such_module', ['no_such_module']),
    (b'text = "\xff"', ['UTF-8']),
    ('whole = 1\0', ['null bytes']),
])
def test_refused_in_a_config_file(toy, source, words):
    write(toy.folder, 'c.py', source)
    result = toy('c.py')
    result.refused('toy.py: ', 'c.py', *words)
    assert result.out == ''


def test_a_config_file_may_count_and_have_functions(toy):
    write(toy.folder, 'a.py', "def f():\n    batch_size = 7\n    return 2 * batch_size\nfor i in range(2):\n    whole = f()\n")
    agrees(toy('a.py'), whole=14)


def test_a_config_file_in_a_folder_like_a_setting(toy):
    (toy.folder / 'real=1').mkdir()
    write(toy.folder, 'real=1/a.py', 'whole = 5')
    agrees(toy('real=1/a.py'), whole=5)


def test_config_files_are_found_beside_the_script(toy, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    (toy.folder / 'config').mkdir()
    write(toy.folder, 'config/a.py', 'whole = 1')
    agrees(toy('config/a.py', cwd=elsewhere), whole=1)
    (elsewhere / 'config').mkdir()
    write(elsewhere, 'config/a.py', 'whole = 2')
    agrees(toy('config/a.py', cwd=elsewhere), whole=2) # the current folder comes first
    toy('config/b.py', cwd=elsewhere).refused('config/b.py')
    run('train.py', 'config/cpu.py', cwd=elsewhere, dataset='/nonexistent', device='cpu').refused('there is no dataset')


# ---- --help --------------------------------------------------------------------------------------------------------------
def settings_of(path):
    """{name: (default, comment)} of a script's settings, read from its source."""
    source = path.read_text(encoding='utf-8').split('\nexec(')[0]
    lines = source.splitlines()
    return {node.targets[0].id: (ast.literal_eval(node.value), lines[node.lineno - 1].partition(' # ')[2])
            for node in ast.parse(source).body if isinstance(node, ast.Assign) and not node.targets[0].id.startswith('_')}


@pytest.mark.parametrize('script', ['train.py', 'sample.py', 'bench.py'])
@pytest.mark.parametrize('args', [['--help'], ['-h'], ['--seed=1', '--help']])
def test_help(script, args):
    result = run(script, *args)
    assert (result.code, result.err) == (0, '')
    source = (ROOT / script).read_text(encoding='utf-8')
    assert result.out.startswith(ast.get_docstring(ast.parse(source)))
    listed = [line.strip() for line in result.out.partition('settings, each')[2].splitlines()[1:]]
    wanted = settings_of(ROOT / script)
    assert len(listed) == len(wanted) > 10
    for line, (name, (default, comment)) in zip(listed, wanted.items(), strict=True):
        assert line.startswith(f'--{name}={default!r}') and line.endswith(comment)


@pytest.mark.parametrize('script', ['train.py', pytest.param('sample.py', marks=pytest.mark.slow)])
def test_help_into_a_closed_pipe(script):
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, str(ROOT / script), '--help'], stdout=written, stderr=subprocess.PIPE, timeout=600)
    os.close(written)
    assert (done.returncode, done.stderr) == (1, b'')


def test_a_setting_stated_twice_is_listed_once(toy):
    write(toy.folder, 'toy.py', TOY.replace('whole = 3\n', 'whole = 3\nwhole = 4 # the later\n'))
    result = toy('--help')
    assert [line.split() for line in result.out.splitlines() if '--whole' in line] == [['--whole=4', 'the', 'later']]
    assert toy().space['whole'] == 4


pytestmark = pytest.mark.filterwarnings('ignore:.*CUDA is not available') # of the pretended machines


# ---- the machine ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def machine(monkeypatch):
    """Pretend to have so many accelerators of a kind; restores PyTorch's float32 precision afterwards."""
    def pretend(kind=None, count=0, bf16=True):
        monkeypatch.setattr(torch.accelerator, 'current_accelerator', lambda *a, **k: kind and torch.device(kind))
        monkeypatch.setattr(torch.accelerator, 'device_count', lambda: count)
        monkeypatch.setattr(torch.accelerator, 'set_device_index', lambda i: chosen.append(i))
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: bf16 or including_emulation)
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda d=None: 'pretended')
        return chosen
    chosen, before = [], torch.get_float32_matmul_precision()
    yield pretend
    torch.set_float32_matmul_precision(before)


def product(ctx):
    a = torch.ones(2, 2)
    with ctx:
        first = a @ a
    with ctx: # it must do for every forward pass, not for one
        assert (a @ a).dtype == first.dtype
    return first.dtype


@pytest.mark.parametrize('args, dtype', [([], 'float32'), (['--dtype=float32'], 'float32'), (['--dtype=bfloat16'], 'bfloat16')])
def test_cpu(toy, machine, args, dtype):
    machine()
    result = toy('--device=auto', *args)
    assert result.code == 0, result.err
    s = result.space
    assert (s['device'], s['dtype'], s['compile'], s['device_type']) == ('cpu', dtype, False, 'cpu')
    assert {k: s['config'][k] for k in ('device', 'dtype', 'compile')} == dict(device='cpu', dtype=dtype, compile=False)
    assert product(s['ctx']) == getattr(torch, dtype)
    assert 'device cpu' in result.out and f'computing in {dtype}, compile False, 1 process' in result.out
    assert toy('--compile').space['config']['compile'] is True # by hand it stays


@pytest.mark.parametrize('onednn', [True, False]) # PyTorch for Macs is built without it
def test_bfloat16_without_instructions_is_a_warning(toy, monkeypatch, onednn):
    no = dict(_is_mkldnn_bf16_supported=lambda: False, _is_mkldnn_fp16_supported=lambda: False)
    monkeypatch.setattr(torch.ops, 'mkldnn', types.SimpleNamespace(**(no if onednn else {})))
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: onednn)
    result = toy('--dtype=bfloat16')
    assert result.code == 0, result.err
    assert 'warning' in result.out and result.space['dtype'] == 'bfloat16'
    assert 'warning' not in toy('--device=mps').out


@pytest.mark.parametrize('args, words', [
    *(([f'--device={d}'], ['device', repr(d), 'cpu']) for d in ('cuda', 'cuda:7', 'xpu', 'mps', 'gpu', 'meta', 'cpu:3', '')),
    *(([f'--dtype={d}'], ['dtype', repr(d), 'bfloat16']) for d in ('bf16', 'float64', 'int8', '')),
])
def test_impossible_machines_are_refused(toy, machine, args, words):
    machine()
    toy(*args).refused('toy.py: ', *words)


def test_device_indices_are_checked(toy, machine):
    chosen = machine('cuda', 2)
    assert toy('--device=cuda:1', '--compile=False').space['device'] == 'cuda:1'
    assert chosen == [1]
    toy('--device=cuda:2').refused('cuda:2', 'cuda:0, cuda:1')
    toy('--device=mps').refused('mps', 'cuda')


@pytest.mark.parametrize('bf16, works', [(True, True), (False, False)])
def test_auto_on_cuda(toy, machine, monkeypatch, bf16, works):
    machine('cuda', 1, bf16)
    def compiled(f):
        if not works:
            raise RuntimeError('no C compiler\nat length')
        return f
    monkeypatch.setattr(torch, 'compile', compiled)
    ones = torch.ones(2)
    monkeypatch.setattr(torch, 'ones', lambda *a, device=None: ones)
    result = toy('--device=auto')
    assert result.code == 0, result.err
    s = result.space
    assert [s['config'][k] for k in ('device', 'dtype', 'compile')] == ['cuda', 'bfloat16' if bf16 else 'float16', works]
    assert torch.get_float32_matmul_precision() == 'high'
    assert ('no C compiler' in result.out) == (not works)


def test_processes_of_torchrun(toy, machine, monkeypatch):
    machine('cuda', 2)
    for key, value in dict(RANK=3, LOCAL_RANK=1, WORLD_SIZE=4).items():
        monkeypatch.setenv(key, str(value))
    result = toy('--device=cuda', '--compile=False')
    assert result.out == '' # the first process speaks for all
    assert [result.space[k] for k in ('rank', 'local_rank', 'world_size', 'device')] == [3, 1, 4, 'cuda:1']
    assert result.space['config']['device'] == 'cuda' # the same in every process
    toy('--device=cuda:1').refused('torchrun')
    monkeypatch.setenv('LOCAL_RANK', '2')
    toy('--device=cuda').refused('no more processes than devices')


def test_text_is_not_left_to_cudnn(toy, machine, monkeypatch):
    """It would plan attention anew at each token, and training has one shape."""
    asked = []
    monkeypatch.setattr(torch.backends.cuda, 'enable_cudnn_sdp', asked.append)
    machine('cuda', 1)
    assert toy('--device=cuda', '--compile=False').code == 0
    run('sample.py', '--device=cuda', cwd=toy.folder).refused('no checkpoint')
    write(toy.folder, 'toy.py', TOY.replace('whole = 3\n', "whole = 3\nmode = 'generate'\n")) # as bench.py has it
    assert toy('--device=cuda', '--compile=False').code == 0
    assert asked == [True, False, False]


@pytest.mark.parametrize('kind, dtype, chosen', [('xpu', 'bfloat16', [0]), ('mps', 'float32', [])])
def test_other_accelerators(toy, machine, kind, dtype, chosen):
    indices = machine(kind, 1)
    s = toy('--device=auto').space
    assert (s['config']['device'], s['config']['dtype'], s['config']['compile'], indices) == (kind, dtype, False, chosen)


def test_half_precision_on_a_mac_gets_a_warning(toy, machine):
    """torch's causal attention let tokens see later ones there."""
    machine('mps', 1)
    assert 'warning' not in toy('--device=mps').out
    for dtype in ('bfloat16', 'float16'):
        result = toy('--device=mps', f'--dtype={dtype}')
        assert result.code == 0 and f'warning: some versions of torch compute attention wrongly in {dtype} on MPS' in result.out


def test_cuda_without_nccl(toy, machine, monkeypatch):
    """As on Windows."""
    machine('cuda', 1)
    assert toy('--device=cuda', '--compile=False', '--backend=gloo').space['backend'] == 'gloo'
    monkeypatch.setattr(torch.distributed, 'is_backend_available', lambda name: name != 'nccl')
    assert toy('--device=cuda', '--compile=False').space['config']['backend'] == 'gloo'
    assert toy('--device=cuda', '--compile=False', '--backend=nccl').code == 0 # nanoGPT's default connects nothing
    toy('--device=cuda', '--compile=False', '--backend=tin').refused("backend 'tin'", 'here, but gloo')
    for key, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2).items():
        monkeypatch.setenv(key, str(value))
    machine('cuda', 2)
    toy('--device=cuda', '--compile=False', '--backend=nccl').refused("backend 'nccl'", 'here, but gloo')
    toy('--device=cpu', '--backend=nccl').refused('on cpu here, but gloo')


def test_a_script_without_a_seed(toy):
    """As nanoGPT's train.py."""
    write(toy.folder, 'toy.py', TOY.replace('seed = 1337\n', ''))
    assert toy().code == 0 and torch.initial_seed() == 1337


def test_freed_memory_is_kept_by_old_and_new_libraries(toy, monkeypatch):
    """glibc before 2.35 refuses to set M_MMAP_THRESHOLD (-3) above 32 MiB, and setting the other one alone would be worse than neither."""
    asked, limit = [], 2 ** 25
    class Library:
        def __init__(self, name):
            pass
        def mallopt(self, what, value):
            asked.append((what, value))
            return int(what != -3 or value <= limit)
    monkeypatch.setattr('ctypes.CDLL', Library)
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert toy().code == 0 and asked == [(-3, 2 ** 30), (-3, 2 ** 25), (-1, 2 ** 31 - 1)]
    limit, asked[:] = 2 ** 40, []
    assert toy().code == 0 and asked == [(-3, 2 ** 30), (-1, 2 ** 31 - 1)]


def test_settings_and_machine_are_announced(toy):
    out = toy('--whole=7', 'text=a b').out
    assert out.splitlines()[0] == "settings given: whole = 7, text = 'a b'"
    assert out.splitlines()[1].startswith('device cpu (')
    assert len(out.splitlines()) == 2


def test_the_seed_is_set(toy):
    draws = [(toy(f'--seed={s}'), torch.rand(3))[1].tolist() for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_script_of_ones_own(tmp_path):
    """It need not state device, dtype or compile, and gets only what it states; its settings have its limits, not ours."""
    (tmp_path / 'own.py').write_text(f"""from torch import device as kind
n, shift, many, mode, device = 1, -1, 2 ** 40, 'fast', kind('cpu')
exec(open({str(ROOT / 'configurator.py')!r}, encoding='utf-8').read())
""")
    result = run(tmp_path / 'own.py', n=2, shift=-7, many=2 ** 41, mode='slow')
    assert result.code == 0, result.err
    settings = dict(n=2, shift=-7, many=2 ** 41, mode='slow')
    assert result.space['config'] == settings and {k: result.space[k] for k in settings} == settings
    assert result.space['device'] == torch.device('cpu') and not {'dtype', 'compile'} & result.space.keys()
    run(tmp_path / 'own.py', n=-1).refused('n must be at least 0')
    run(tmp_path / 'own.py', shift=3e9).refused(f'shift must be below {2 ** 31}, got') # it has no least value
    # once it has ended, what fails in an interactive session is the session's own, told as Python tells it
    done = subprocess.run([sys.executable, '-i', str(tmp_path / 'own.py'), '--mode=\u65e5'], input='open("nofile")\n', capture_output=True, encoding='utf-8', timeout=600,
                          env={**os.environ, 'PYTHONIOENCODING': 'cp1252'})
    assert '\u65e5' in done.stdout and 'FileNotFoundError' in done.stderr and 'Traceback' in done.stderr and 'NameError' not in done.stderr, done.stderr


def test_memory_that_runs_out_is_told_in_gigabytes(toy):
    """16 bytes a parameter; logits and their gradient in float32."""
    shape = 'n_embd, n_layer, block_size, vocab_size = 4096, 32, 2048, 50304\n'
    write(toy.folder, 'toy.py', shape + TOY + 'raise MemoryError\n')
    toy().refused('takes 106.4 GB for weights, gradients and moments', 'up to 9.9 GB')


def test_an_argument_with_dashes_is_never_a_file(toy):
    write(toy.folder, '--whole=7', 'text = "no"')
    agrees(toy('--whole=7'), whole=7)
    agrees(toy('--text=a=b', 'whole=8'), text='a=b', whole=8)


def test_a_linked_script_finds_what_is_beside_it(tmp_path):
    for name in ('train.py', 'bench.py', 'sample.py'):
        (tmp_path / name).symlink_to(ROOT / name)
        run(tmp_path / name, 'config/cpu.py', '--nonsense=1', cwd=tmp_path).refused('there is no setting') # the config was found
